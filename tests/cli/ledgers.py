"""Ledgers to look into, filled by the library itself; and an owner in another process, to be killed."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from segundo.ledger.sqlite import SQLiteLedger
from segundo.record import Call, Record, State
from tests.ledger.suite import call, settlement
from tests.support import ROOT

T = TypeVar("T")
ME = "me"


def fill(story: Callable[[SQLiteLedger], Awaitable[T]], path: Path | None = None, **options: Any) -> T:
    """Open the ledger of the working directory, and tell it the story. Its owner then ends without a word."""

    async def tell() -> T:
        ledger = SQLiteLedger(path or Path("segundo.db"), **options)
        await ledger.open()
        try:
            await ledger.join(ME)
            return await story(ledger)
        finally:
            await ledger.close(dead=True)

    return asyncio.run(tell())


async def queued(ledger: SQLiteLedger, **fields: Any) -> Record:
    (record,) = await ledger.record([call(**fields)], owner=ME)
    return record


async def call_many(ledger: SQLiteLedger, count: int) -> None:
    await ledger.record([call() for _ in range(count)], owner=ME)


async def running(ledger: SQLiteLedger, **fields: Any) -> Record:
    (record,) = await ledger.claim(ME, ids=[(await queued(ledger, **fields)).id], limit=1)
    return record


async def ended(ledger: SQLiteLedger, state: State = State.SUCCEEDED, **fields: Any) -> Record:
    """`result`, `error` and `reason` are the outcome's, what else is given is the call's."""
    outcome = {name: fields.pop(name) for name in ("result", "error", "reason") if name in fields}
    record = await running(ledger, **fields)
    await ledger.settle([settlement(record, state, **outcome)])
    return (await ledger.select(ids=[record.id]))[0]


def one_of_each() -> dict[State, Record]:
    """A ledger with one record in each state, waiting first."""

    async def story(ledger: SQLiteLedger) -> dict[State, Record]:
        (waiting,) = await ledger.record([call(held=True)], owner=ME)
        records = [waiting, await queued(ledger), await running(ledger)]
        records += [await ended(ledger), await ended(ledger, State.FAILED, reason="ValueError")]
        records.append(await ledger.cancel((await queued(ledger)).id))
        return {record.state: record for record in records}

    return fill(story)


@contextmanager
def held_elsewhere(*calls: Call, durability: str = "full") -> Iterator["subprocess.Popen[str]"]:
    """Another process that has joined the ledger of the working directory and claimed these calls."""
    program = [sys.executable, "-m", "tests.cli.holder", "segundo.db", durability]
    environment = {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        program, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            holder.stdin.write(json.dumps([one._asdict() for one in calls]) + "\n")
            holder.stdin.flush()
            assert holder.stdout.readline() == "holds them\n"
            yield holder
        finally:
            holder.kill()
