"""The table of `segundo ls`: one line for each record, in whatever width the terminal has."""

from collections.abc import Sequence
from itertools import pairwise

from rich.table import Table
from rich.text import Text

from segundo.cli.phrases import age, duration, line, shorten
from segundo.progress import Progress
from segundo.record import Record, State

STYLES = {
    State.WAITING: "dim",
    State.QUEUED: "cyan",
    State.RUNNING: "blue bold",
    State.SUCCEEDED: "green",
    State.FAILED: "red bold",
    State.CANCELLED: "yellow",
}
WIDE = 120  # columns from which ids are whole and the queue is shown
SHORTEST_ID = 16  # characters: the time in microseconds, and 8 random bits
QUEUE, NOTE = 12, 20  # characters at most; a note may be longer in a wide terminal
FIXED = 9 + 3 + 4 + 5 * 2  # columns of STATE, TRY, AGE and the gaps between six
SHORTEST_TASK = 12


def table(records: Sequence[Record], now: float, width: int) -> Table:
    """Records as they stand `now`, for a terminal of `width` columns."""
    wide = width >= WIDE
    length = max(len(record.id) for record in records) if wide else _enough([record.id for record in records])
    notes = [_note(record, now)[: 3 * NOTE if wide else NOTE] for record in records]
    room = width - FIXED - length - max(4, *map(len, notes)) - (QUEUE + 2) * wide
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for heading in ("ID", "STATE", "TRY", "AGE", *(["QUEUE"] if wide else []), "TASK", "NOTE"):
        made.add_column(heading, no_wrap=True, justify="right" if heading in ("TRY", "AGE") else "left")
    for record, note in zip(records, notes, strict=True):
        cells: list[str | Text] = [
            record.id[:length],
            Text(record.state, STYLES[record.state]),
            str(record.attempt),
            age(now - record.created_at),
            *([Text(shorten(line(record.queue), QUEUE))] if wide else []),
            Text(shorten(line(record.task), max(SHORTEST_TASK, room))),
            Text(note),
        ]
        made.add_row(*cells)
    return made


def _enough(ids: Sequence[str]) -> int:
    """How many characters tell these ids from each other."""
    ordered = sorted(ids)
    return max([SHORTEST_ID] + [_common(*pair) + 1 for pair in pairwise(ordered)])


def _common(one: str, other: str) -> int:
    return next((index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))


def _how_far(record: Record) -> str:
    progress = Progress.read(record.progress)
    if progress is None:
        return ""
    return f"{progress.done:,} " if progress.percent is None else f"{progress.percent}% "


def _note(record: Record, now: float) -> str:
    if record.state is State.RUNNING and record.started_at is not None:
        how = "stopping" if record.cancel_requested else "for"
        return f"{_how_far(record)}{how} {duration(now - record.started_at)}"
    if record.state is State.QUEUED and record.run_at > now:
        return f"in {duration(record.run_at - now)} {record.reason or ''}"
    if record.reason is None and record.started_at is not None and record.finished_at is not None:
        return f"took {duration(record.finished_at - record.started_at)}"
    return line(record.reason or "")
