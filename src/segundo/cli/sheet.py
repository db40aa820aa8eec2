"""The sheet of `segundo show`: all that the ledger knows of one record."""

from collections.abc import Iterator, Sequence

from rich.text import Text

from segundo.cli.phrases import duration, harmless, line, moment, number, pretty
from segundo.cli.table import STYLES
from segundo.failure import Failure
from segundo.progress import Progress
from segundo.record import REQUEST, Record, State

PAYLOADS = ("arguments", "carried", "result")
ERROR = "red"


def sheet(record: Record, before: Sequence[str], now: float) -> Text:
    """A record as it stands `now`; `before`: what it waits for, the ids of records and perhaps "request"."""
    record = record.hiding()
    text = Text(no_wrap=False)
    text.append(record.id + "\n", "bold")
    for name, value, style in _facts(record, before, now):
        text.append(f"  {name:<12}").append(line(value) + "\n", style)
    if record.wiped or record.secret:
        text.append("\narguments\n", "bold").append(_indented(_withheld(record)))
    for name in PAYLOADS:
        if (payload := getattr(record, name)) is not None:
            text.append(f"\n{name}\n", "bold").append(_indented(pretty(payload)))
    if record.error is not None:
        text.append("\nerror\n", "bold").append_text(_error(record.error))
    text.right_crop(1)
    return text


def _facts(record: Record, before: Sequence[str], now: float) -> Iterator[tuple[str, str, str]]:
    yield "task", record.task, ""
    yield "state", _state(record), STYLES[record.state]
    yield "queue", f"{record.queue}, priority {record.priority}", ""
    yield "attempt", _attempt(record), ""
    if record.progress is not None:
        yield "progress", _progress(record.progress), ""
    for name, value in (("key", record.key), ("same as", record.same_as), ("retry of", record.retry_of)):
        if value is not None:
            yield name, value, ""
    if before:
        yield "waits for", ", ".join("the end of its request" if id == REQUEST else id for id in before), ""
    for name in ("created", "run", "started", "finished", "published_until"):
        at: float | None = getattr(record, name if name == "published_until" else f"{name}_at")
        if at is not None:
            yield {"run": "due", "published_until": "published"}.get(name, name), moment(at, now), ""
    if record.owner is not None:
        yield "held by", record.owner, ""
    yield "claimed", number(record.claim, "time"), ""
    yield "kept", "for ever" if record.retention is None else f"{duration(record.retention)} once ended", ""


def _withheld(record: Record) -> str:
    return "wiped when it ended" if record.wiped else "hidden: the task is secret"


def _state(record: Record) -> str:
    if record.state is State.RUNNING and record.cancel_requested:
        return f"{record.state}, asked to stop"
    return record.state if record.reason is None else f"{record.state}: {record.reason}"


def _progress(text: str) -> str:
    progress = Progress.read(text)
    if progress is None:
        return text  # no task of ours has said it
    of = "" if progress.total is None else f" of {progress.total:,}"
    percent = "" if progress.percent is None else f" ({progress.percent}%)"
    message = "" if progress.message is None else f": {progress.message}"
    return f"{progress.done:,}{of}{percent}{message}"


def _attempt(record: Record) -> str:
    of = "any number" if record.attempts is None else str(record.attempts)
    failures = number(record.failures, "failure")
    return f"{record.attempt} of {of} ({failures}, {record.crashes} of {record.crash_limit} crashes)"


def _error(payload: str) -> Text:
    """What the runner wrote of an exception: its message, notes and causes, then the traceback."""
    error = Failure.read(payload)
    text = Text(_indented(harmless(f"{error.type}: {error.message}")), ERROR)
    for note in error.notes:
        text.append(_indented(harmless(note)))
    for cause in error.causes:
        text.append(_indented(harmless(f"caused by {cause.type}: {cause.message}")))
    if error.traceback:
        text.append("\n").append(_indented(harmless(error.traceback)))
    return text


def _indented(text: str) -> str:
    return "".join(f"  {line}".rstrip() + "\n" for line in text.splitlines())
