"""What the ledger stores of a call, and the only ways in which it changes. Read this file first."""

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from segundo.errors import NotAllowed


class State(StrEnum):
    """Where a record stands. The last three are for ever."""

    WAITING = "waiting"  # for its request to end, or for the call before it
    QUEUED = "queued"  # may be claimed once `run_at` is due
    RUNNING = "running"  # an attempt holds the claim
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
LIVE = frozenset(State) - TERMINAL

DEFAULT_PRIORITY = 5
PRIORITIES = range(10)

# What every store takes, so that a call which one would refuse is refused by all, on the caller's line.
LARGEST = 2**31 - 1  # of what is counted
# In bytes. No queue of a broker has a longer name; a name and a key fit together into one row of an index.
LONGEST = {"queue": 255, "name": 1024, "key": 1024}


def is_count(value: object, *, least: int) -> bool:
    """Whether it is a whole number that every store can keep."""
    return isinstance(value, int | float) and least <= value <= LARGEST and value % 1 == 0


def unstorable(text: object, longest: int) -> str | None:
    """Why some store would not take this text, of at most so many bytes; None if all would."""
    if not isinstance(text, str):
        return f"is a text, not {text!r}"
    if "\0" in text:
        return f"cannot hold the character NUL, which PostgreSQL does not store: {text!r}"
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        return f"cannot hold half of a surrogate pair: {text!r}"
    return f"has {length:,} bytes, and may have {longest:,}" if length > longest else None


class Transition(NamedTuple):
    """One lettered row of the state table: who alone may make it, and the guard in its statement."""

    letter: str
    source: State | None
    target: State | None
    by: str
    guard: str


# What stores new calls: those of requests, and with an attempt's success those that it added.
RECORDING = "record, settle"
# What ends the wait for a request. `forget` keeps a refused call that another request was told is the same.
FREEING = "release, start, rescue, forget"
# What can be the end of a record, and so lets go on, or cancels, what waits for it.
ENDING = "settle, cancel, rescue, beat, forget"

# The docs' diagram and the property tests are made from this table; `None` is "no row".
TRANSITIONS = (
    Transition("a", None, State.WAITING, RECORDING, "id unused, no live record with this (task, key)"),
    Transition("a", None, State.QUEUED, RECORDING, "the same, outside a request and with nothing before it"),
    Transition("a", None, State.CANCELLED, RECORDING, "a live record has its key, or one before it failed"),
    Transition("b", State.WAITING, State.QUEUED, FREEING, "owner=? and nothing live before it"),
    Transition("b", State.WAITING, State.WAITING, FREEING, "owner=? and something live before it"),
    Transition("c", State.WAITING, State.QUEUED, ENDING, "no owner, nothing live before it"),
    Transition("d", State.QUEUED, State.RUNNING, "claim", "queued and due"),
    Transition("bd", State.WAITING, State.RUNNING, "start", "owner=?, due, nothing live before it"),
    Transition("e", State.RUNNING, State.SUCCEEDED, "settle", "claim=?"),
    Transition("e", State.RUNNING, State.FAILED, "settle", "claim=?"),
    Transition("e", State.RUNNING, State.CANCELLED, "settle, beat", "claim=?"),
    Transition("f", State.RUNNING, State.QUEUED, "settle", "claim=?, failures left, no cancel asked"),
    Transition("g", State.RUNNING, State.QUEUED, "settle, beat", "claim=?, user code not started or stopped"),
    Transition("h", State.RUNNING, State.QUEUED, "rescue", "owner dead, claim=?, crashes < crash_limit"),
    Transition("h", State.RUNNING, State.FAILED, "rescue", "owner dead, claim=?, crash budget spent"),
    Transition("h", State.RUNNING, State.CANCELLED, "rescue", "owner dead, claim=?, cancel asked"),
    Transition("i", State.WAITING, State.CANCELLED, ENDING, "not running"),
    Transition("i", State.QUEUED, State.CANCELLED, "cancel", "not running"),
    Transition("j", State.RUNNING, State.RUNNING, "cancel, progress", "state unchanged"),
    Transition("j", State.QUEUED, State.QUEUED, "publish", "due, no message about it in the broker"),
    Transition("k", State.WAITING, None, "forget", "owner=?; outside a request: no owner"),
    Transition("k", State.QUEUED, None, "forget", "outside a request, never claimed"),
    Transition("k", State.CANCELLED, None, "forget", "never claimed"),
    Transition("l", State.SUCCEEDED, None, "prune", "older than the retention, nothing live waits for it"),
    Transition("l", State.FAILED, None, "prune", "the same"),
    Transition("l", State.CANCELLED, None, "prune", "the same"),
)


class Wipe(StrEnum):
    """What becomes of a call's arguments, and of what is carried with it, where they are not simply kept."""

    AT_THE_END = "at the end"  # deleted by whatever makes the record terminal
    SECRET = "secret"  # the same, and until then nobody is shown them


@dataclass(frozen=True, slots=True)
class Link:
    """What a call waits for: the record before it, and whether its failure cancels this call."""

    before: str
    on_failure: str = "cancel"  # or "run"


class Call(NamedTuple):
    """A task and its encoded arguments, not yet in the ledger.

    Times are unix seconds; `delay` counts from the ledger's own clock at the moment of recording.
    """

    id: str
    task: str
    arguments: str
    format: int = 1
    queue: str = "default"
    priority: int = DEFAULT_PRIORITY
    delay: float = 0.0
    run_at: float | None = None
    attempts: int | None = 1  # None: without limit
    crash_limit: int = 0
    key: str | None = None
    retry_of: str | None = None
    retention: float | None = None
    carried: str | None = None
    after: tuple[Link, ...] = ()
    held: bool = True  # waits for its request to end
    timeout: float | None = None  # of one attempt; the runner's is the task's, this one tells who is overdue
    wipe: str | None = None  # a Wipe; None: the arguments are kept as long as the record

    def __repr__(self) -> str:
        return shown(self)


class Record(NamedTuple):
    """One row of the ledger, column by column. Times are unix seconds on the ledger's clock."""

    id: str
    task: str
    queue: str
    priority: int
    state: State
    reason: str | None
    owner: str | None
    claim: int
    failures: int
    crashes: int
    attempts: int | None
    crash_limit: int
    key: str | None
    same_as: str | None
    retry_of: str | None
    format: int
    arguments: str | None
    carried: str | None
    result: str | None
    error: str | None
    progress: str | None
    retention: float | None
    cancel_requested: bool
    created_at: float
    run_at: float
    started_at: float | None
    finished_at: float | None
    published_until: float | None
    timeout: float | None
    wipe: str | None

    def __repr__(self) -> str:
        return shown(self)

    @property
    def secret(self) -> bool:
        """Whether nobody is shown the arguments."""
        return self.wipe == Wipe.SECRET

    @property
    def wiped(self) -> bool:
        """Whether the arguments have been deleted, as they were not to be kept."""
        return self.wipe is not None and self.state.terminal

    def hiding(self) -> "Record":
        """The same for people to see: without the arguments, and what is carried, if they are secret."""
        return self._replace(arguments=None, carried=None) if self.secret else self

    @property
    def printable_task(self) -> str:
        """The task's name for a log: who writes into the file may say anything in it, but begin no line.

        (test_no_line_of_the_log_begins_with_what_a_name_says)
        """
        return self.task if self.task.isprintable() else ascii(self.task)

    @property
    def attempt(self) -> int:
        """The number of the attempt that runs, would run next, or was the last: 1 for the first."""
        if self.state is State.FAILED and self.reason != "WorkerLost":
            return max(1, self.failures)  # its last attempt is among them; a lost one was not counted
        return self.failures + 1

    def claimed(self, owner: str, now: float) -> "Record":
        """As a claim leaves it (transition d)."""
        values: list[Any] = list(self)
        values[STATE], values[OWNER], values[CLAIM], values[STARTED_AT] = (
            State.RUNNING,
            owner,
            self.claim + 1,
            now,
        )
        return Record._make(values)

    def overdue(self, now: float) -> bool:
        """Whether an attempt runs past its timeout: a `def` in a thread cannot be stopped."""
        if self.state is not State.RUNNING or self.timeout is None or self.started_at is None:
            return False
        return now > self.started_at + self.timeout

    @property
    def failures_left(self) -> bool:
        return self.attempts is None or self.failures + 1 < self.attempts


def waits_for(record: Record, before: Sequence[str]) -> list[str]:
    """What a record waits for: "request" until its own has ended, and the ids `before` it that live."""
    if record.state is not State.WAITING:
        return []
    return [REQUEST, *before] if record.owner is not None else list(before)


REQUEST = "request"  # among ids, and none of them


def shown(values: Call | Record) -> str:
    """How one looks in a log, or a debugger: a secret does not."""
    hidden = ("arguments", "carried") if values.wipe == Wipe.SECRET else ()
    fields = (
        f"{name}={'<secret>' if name in hidden else repr(value)}"
        for name, value in zip(values._fields, values, strict=True)
    )
    return f"{type(values).__name__}({', '.join(fields)})"


STATE, OWNER, CLAIM, STARTED_AT = map(Record._fields.index, ("state", "owner", "claim", "started_at"))


class Ids:
    """Makes records' ids: 56 bits of time in microseconds, then 88 random bits, so ids sort by time.

    The random bits are the operating system's, fetched for many ids at once: each fetch lets go of the
    interpreter, and on a busy loop getting it back costs far more than the bits. A forked child fetches
    its own.
    """

    def __init__(self) -> None:
        self._random: list[str] = []
        os.register_at_fork(after_in_child=self._random.clear)

    def __call__(self) -> str:
        while True:
            try:
                return f"{time.time_ns() // 1_000:014x}{self._random.pop()}"
            except IndexError:
                fetched = os.urandom(11 * 256).hex()
                self._random.extend(fetched[at : at + 22] for at in range(0, len(fetched), 22))


new_id = Ids()


def made_at(id: str) -> float:
    """When an id was made, by its host's clock; 0 for what is none of ours."""
    return int(id[:14], 16) / 1e6 if re.fullmatch("[0-9a-f]{36}", id) else 0.0


def again(record: Record) -> Call:
    """The call of an ended record, to be recorded anew: retry by hand.

    It keeps the key, or gets one of its own, so that of two retries the second is a duplicate while the first
    is live. Raises NotAllowed if the record has not ended, or its arguments were wiped.
    """
    if not record.state.terminal:
        raise NotAllowed(
            f"{record.id} has not ended yet, it is {record.state}: only what has ended can be retried"
        )
    if record.arguments is None:
        raise NotAllowed(
            f"{record.id} cannot be retried: its arguments were wiped when it ended, as its task has it"
        )
    return Call(
        id=new_id(),
        task=record.task,
        arguments=record.arguments,
        format=record.format,
        queue=record.queue,
        priority=record.priority,
        attempts=record.attempts,
        crash_limit=record.crash_limit,
        key=record.key or f"retry:{record.id}",
        retry_of=record.id,
        retention=record.retention,
        carried=record.carried,
        held=False,
        timeout=record.timeout,
    )
