"""`segundo move`: what would move from one ledger to another, and the move itself."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from segundo.cli.phrases import duration, line, number
from segundo.cli.place import Place, opened, visit
from segundo.cli.table import STYLES
from segundo.errors import ConfigurationError, NotAllowed
from segundo.ledger.moving import Move
from segundo.ledger.stores import name_of
from segundo.ledger.visiting import Worker
from segundo.record import State

PHASES = {"copied": "copied", "let go": "released", "discarded": "taken out"}


def show(old: Place, new: Place, *, ended: bool) -> None:
    """Print what would move, and who is in the way; change nothing."""
    _check(old, new)
    with visit(old) as visitor:
        found: Counter[tuple[str, str, str]] = Counter()
        for seen in visitor.walk():
            if ended or not State(seen.state).terminal:
                found[seen.task, seen.queue, seen.state] += 1
        alive = [worker for worker in visitor.workers() if worker.alive]
    if found:
        Console().print(_table(found))
    typer.echo(
        f"{number(found.total(), 'record')} would move from {name_of(str(old))} to {name_of(str(new))}"
    )
    if alive:
        typer.echo(f"not yet: {_in_the_way(old, alive)}", err=True)


def _table(found: Counter[tuple[str, str, str]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for heading in ("TASK", "QUEUE", "STATE"):
        table.add_column(heading, overflow="fold")
    table.add_column("RECORDS", justify="right")
    for (task, queue, state), count in sorted(found.items()):
        table.add_row(Text(line(task)), Text(line(queue)), Text(state, STYLES[State(state)]), f"{count:,}")
    return table


def move(old: Place, new: Place, *, ended: bool) -> None:
    """Move them, and say so. Raises NotAllowed while somebody is alive in the old ledger."""
    _check(old, new)
    with visit(old) as visitor:
        _free(old, visitor.workers(), "")
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    bars = _Bars(progress)
    try:
        with progress:
            gone = asyncio.run(_move(old, new, bars, ended=ended))
    except BaseException:
        if bars.shut:
            remark = "is shut until the move is finished: run the same command again"
            typer.echo(f"{name_of(str(old))} {remark}", err=True)
        raise
    typer.echo(f"moved {number(gone, 'record')} to {name_of(str(new))}")
    typer.echo(f"{name_of(str(old))} is shut: start the app with SEGUNDO_LEDGER set to the new one", err=True)


async def _move(old: Place, new: Place, reached: Callable[[str, int], None], *, ended: bool) -> int:
    def stays(me: str) -> None:
        with visit(old) as visitor:
            _free(old, visitor.workers(), me)

    async with opened(old) as leaving, opened(new) as entering:
        return await Move(leaving, entering, ended=ended, stays=stays, reached=reached).run()


class _Bars:
    """One line for each phase, that says how far it is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.shut = False
        self._bars = {
            name: progress.add_task(said, total=None, visible=False) for name, said in PHASES.items()
        }
        self._waits = progress.add_task("", total=None, visible=False)

    def __call__(self, step: str, count: int) -> None:
        if step == "waits":
            self._progress.update(
                self._waits, visible=True, description="waiting until it is sure that who was there is dead"
            )
        elif step == "shut":
            self.shut = True
            self._progress.update(self._waits, visible=False)
            for bar in self._bars.values():
                self._progress.update(bar, total=count)
        elif step in self._bars:
            self._progress.update(self._bars[step], visible=True, advance=count)


def _check(old: Place, new: Place) -> None:
    if name_of(str(old)) == name_of(str(new)):
        raise ConfigurationError(f"{name_of(str(old))} is both OLD and NEW: name another ledger to move to")


def _free(place: Place, workers: list[Worker], me: str) -> None:
    alive = [worker for worker in workers if worker.alive and worker.id != me]
    if alive:
        raise NotAllowed(_in_the_way(place, alive))


def _in_the_way(place: Place, alive: list[Worker]) -> str:
    now = time.time()
    each = ", ".join(
        f"pid {worker.pid} on {line(worker.host)} (for {duration(now - worker.started_at)}, "
        f"{number(worker.held, 'record')} in hand)"
        for worker in alive
    )
    advice = "stop the app and its workers, and let them end in good order"
    if isinstance(place, str):
        advice += "; who was killed counts as alive for up to 30 s"
    return f"{name_of(str(place))} is in use by {each}: {advice}"
