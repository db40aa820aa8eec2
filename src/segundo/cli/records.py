"""The commands about records: list, show, retry, cancel, prune."""

import asyncio
import json
import sys
import time
from contextlib import aclosing, suppress

import typer
from rich.console import Console

from segundo.cli.phrases import number
from segundo.cli.place import Place, change, in_time, visit
from segundo.cli.sheet import sheet
from segundo.cli.table import table
from segundo.duration import seconds
from segundo.errors import ConfigurationError, NotAllowed
from segundo.ledger.written import WrittenLedger
from segundo.progress import Progress
from segundo.record import Record, State, again

# What `ls --json` prints of a record, in this order, then `progress` and `waits_for`; scripts rely on names.
LISTED = (
    *("id", "task", "queue", "state", "reason", "attempt", "claim", "failures", "crashes"),
    *("created_at", "run_at", "started_at", "finished_at", "key", "same_as", "retry_of"),
)
MOMENT = 1.0  # seconds that `cancel` waits for what runs
PRUNED_AT_ONCE = 1000  # rows of one transaction, so that a running app's requests need not wait long


def print_json(place: Place, *, state: State | None, task: str | None, limit: int) -> None:
    with visit(place) as visitor:
        for record in visitor.records(state=state, task=task, limit=limit):
            listed = {name: getattr(record, name) for name in LISTED}
            sys.stdout.write(
                json.dumps({**listed, "progress": _progress(record), "waits_for": visitor.waits_for(record)})
                + "\n"
            )


def _progress(record: Record) -> dict[str, object] | None:
    progress = Progress.read(record.progress)
    return None if progress is None else progress._asdict()


def print_table(place: Place, *, state: State | None, task: str | None, limit: int) -> None:
    with visit(place) as visitor:
        records = list(visitor.records(state=state, task=task, limit=limit))
    if records:
        console = Console()
        console.print(table(records, time.time(), console.width))
    if len(records) == limit:
        _remark(f"the newest {limit:,}; --limit shows more")
    elif not records:
        _remark("no such records" if state or task else "no records")


def show(place: Place, id: str) -> None:
    with visit(place) as visitor:
        record = visitor.find(id)
        before = visitor.waits_for(record)
    Console(highlight=False, soft_wrap=True).print(sheet(record, before, time.time()))


def retry(place: Place, id: str) -> None:
    call = again(_find(place, id))

    async def record(ledger: WrittenLedger) -> Record:
        (recorded,) = await in_time(ledger.record([call], owner="segundo retry"))
        return recorded

    recorded = change(place, record)
    typer.echo(recorded.id)
    if recorded.same_as is not None:
        _remark(
            f"not run: {recorded.same_as} has the same key and has not ended; this retry is recorded as "
            "cancelled, reason Duplicate"
        )


def cancel(place: Place, id: str) -> None:
    record = _find(place, id)
    if not record.state.terminal:
        record = change(place, lambda ledger: _cancel(ledger, record.id))
        if record.state is State.CANCELLED:
            typer.echo(f"cancelled {record.id}")
            return
        if record.state is State.RUNNING:
            typer.echo(f"asked {record.id} to stop: it is running, and has not ended yet")
            return
    raise NotAllowed(f"{record.id} has ended already: {record.state}")


async def _cancel(ledger: WrittenLedger, id: str) -> Record:
    """Cancel it; what runs has a moment to end, so that mostly the answer says how it did."""
    record = await in_time(ledger.cancel(id))
    if record.state is State.RUNNING:
        with suppress(TimeoutError):
            async with asyncio.timeout(MOMENT), aclosing(ledger.watch([id])) as changes:
                async for change in changes:
                    record = change
    return record


def prune(place: Place, older_than: str | None) -> None:
    age = None if older_than is None else _age(older_than)
    with visit(place):
        pass  # there is a ledger: what follows would create one

    async def delete(ledger: WrittenLedger) -> int:
        pruned = deleted = await in_time(ledger.prune(older_than=age, limit=PRUNED_AT_ONCE))
        while deleted == PRUNED_AT_ONCE:
            deleted = await in_time(ledger.prune(older_than=age, limit=PRUNED_AT_ONCE))
            pruned += deleted
        return pruned

    typer.echo(f"deleted {number(change(place, delete), 'record')}")


def _find(place: Place, id: str) -> Record:
    with visit(place) as visitor:
        return visitor.find(id)


def _age(text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        raise ConfigurationError(f"--older-than: {error}") from error


def _remark(text: str) -> None:
    """What is not the answer itself goes to standard error, so that the answer can be piped."""
    typer.echo(text, err=True)
