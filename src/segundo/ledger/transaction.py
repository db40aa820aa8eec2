"""One transaction of a ledger's writer: the moment it happens, what it can do, and what must follow it.

A store of its own adds its statements and its connection; the changes, which are made of these, are shared.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, Protocol

from segundo.record import STATE, Call, Record, State

# The columns of a new record that every call fills, and most fill no more: a row costs by its columns.
COMMON = (
    *("id", "task", "queue", "priority", "state", "owner", "attempts", "crash_limit", "format", "arguments"),
    *("retention", "created_at", "run_at"),
)


def is_common(record: Record) -> bool:
    """Whether a new record fills no others. What has a key, or waits for another, is stored by itself."""
    return (
        record.carried is None and record.retry_of is None and record.timeout is None and record.wipe is None
    )


class DeadWorker(NamedTuple):
    """Who it was, and whether it had said that it stops."""

    number: int
    id: str
    host: str
    pid: int
    stopping: bool


class Rows(Protocol):
    """What a statement gives: a cursor."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...


class Transaction(ABC):
    """Given to every change of a batch. `now` is the same for all of them."""

    sql: ClassVar[ModuleType]  # its statements: the same names in each store, and the same parameters
    # What is wrong with a call, and not with the store or its disk: values that the store refuses.
    wrong_call: ClassVar[tuple[type[Exception], ...]]

    # A statement and its parameters, by position or by name; as a connection's own `execute`.
    run: Callable[..., Rows]

    def __init__(self, now: float) -> None:
        self.now = now
        self.ending = False  # it is being committed: from here on a failure may be a success
        self.freed = False  # something became claimable that nobody in this process knows of
        self.asked = False  # a cancel of what runs was asked for: its process, whichever it is, is to be told
        self.queued = False  # something became claimable that who asked for it knows of, and nobody else
        self._afterwards: list[Callable[[], None]] = []
        self._if_undone: list[Callable[[], None]] = []

    # What a store does in its own way

    @abstractmethod
    def join(self, owner: str, durability: str) -> int:
        """Register a worker that lives from before anyone can see it; its number. Who is there stays so."""

    @abstractmethod
    def dead_workers(self) -> list[DeadWorker]:
        """Those who have died; until the end nobody else finds them."""

    @abstractmethod
    def insert(self, records: Sequence[Record]) -> None:
        """Store new records without a key or a predecessor; those that are there stay as they are."""

    @abstractmethod
    def insert_whole(self, records: Sequence[Record]) -> None:
        """Store records with all that they have been through; those that are there stay as they are."""

    @abstractmethod
    def changed(self, statement: str, parameters: Any, ids: list[str], *, exact: bool = False) -> list[str]:
        """Which of `ids` a statement changes; mostly all."""

    @abstractmethod
    def hold(self, ids: Sequence[str]) -> None:
        """Let nobody change these rows until the end: what is read of others then fits to them."""

    @abstractmethod
    def hold_keys(self, calls: Iterable[Call | Record]) -> None:
        """Let nobody else record a call with the task and key of one of these until the end."""

    @property
    def has_links(self) -> bool:
        """Whether any record may wait for another."""
        return True

    @property
    def claimable(self) -> bool:
        """Whether other processes have something to look for."""
        return self.freed or self.queued

    @abstractmethod
    def gate(self, *, shut: bool = False) -> None:
        """Until the end nobody shuts this ledger, or, to `shut` it, enters."""

    def give_back(self) -> int:
        """Give room that deleted records have left to the disk; how many pages. Most stores do it unasked."""
        return 0

    # What follows it

    def afterwards(self, step: Callable[[], None]) -> None:
        """Do `step` when the transaction has ended, committed or not."""
        self._afterwards.append(step)

    def if_undone(self, step: Callable[[], None]) -> None:
        """Do `step` when the transaction has failed, also if it may be in the store all the same."""
        self._if_undone.append(step)

    def over(self, *, committed: bool) -> None:
        for step in self._afterwards + ([] if committed else self._if_undone):
            step()

    # What several changes do

    def ended(self, ids: Sequence[str]) -> None:
        """These records became terminal: let go on, or cancel, what waited for them (transitions c and i)."""
        while ids and self.has_links:
            released = self.run(self.sql.FREE, (json.dumps(ids),)).fetchall()
            if not released:
                return
            successful = self.column(self.sql.SUCCESSFUL, json.dumps(ids))
            doomed = {
                after: before
                for before, after, on_failure in released
                if on_failure == "cancel" and before not in successful
            }
            self._queue({after for _, after, _ in released} - doomed.keys())
            ids = self._cancelled_behind(doomed)

    def cancelled(self, ids: Iterable[str], reason: str) -> list[str]:
        """Cancel those that do not run (i); returns them."""
        return self.column(self.sql.CANCEL, reason, self.now, json.dumps(list(ids)))

    def _cancelled_behind(self, doomed: Mapping[str, str]) -> list[str]:
        """Cancel those that wait (i) for these, by what they wait for."""
        errors = {id: in_vain(before) for id, before in doomed.items()}
        return self.column(self.sql.CANCEL_BEHIND, self.now, json.dumps(errors)) if errors else []

    def _queue(self, ids: set[str]) -> None:
        if not ids:
            return
        self.hold(list(ids))
        if self.run(self.sql.QUEUE_FREED, (self.now, json.dumps(list(ids)))).rowcount:
            self.freed = True

    @contextmanager
    def step(self) -> Generator[None]:
        """What is done in here is done as a whole, or, if it raises, not at all."""
        self.run("SAVEPOINT step")
        try:
            yield
        except BaseException:
            self.run("ROLLBACK TO step")
            raise
        finally:
            self.run("RELEASE step")

    def may_publish(self, queue: str) -> bool:
        """Whether nobody else just publishes of this queue; until the end of the transaction nobody will."""
        return True

    # Reading

    def value(self, statement: str, *parameters: object, **named: object) -> Any:
        """The first column of the first row, or None."""
        row = self.run(statement, named or parameters).fetchone()
        return None if row is None else row[0]

    def column(self, statement: str, *parameters: object) -> list[str]:
        """The first column of all rows."""
        return [row[0] for row in self.run(statement, parameters).fetchall()]

    def records(self, statement: str, **named: object) -> list[Record]:
        return [to_record(row) for row in self.run(statement, named).fetchall()]

    def claimed(self, statement: str, **named: object) -> list[Record]:
        """What a statement claims."""
        return ours(self.run(statement, named).fetchall())


def in_vain(before: str) -> str:
    """What is to be known of a call that was cancelled by the end of the one before it."""
    message = f"it needs the success of {before}, which ended without it"
    return json.dumps({"type": "PredecessorFailed", "message": message, "before": before})


def ours(claimed: Iterable[Sequence[Any]]) -> list[Record]:
    """The records of claimed rows. An id that cannot be ours is nobody's to run: the end of its attempt might
    not find it again, and it would run for ever (test_a_record_runs_once_or_never_whatever_its_id).
    """
    return [record for record in map(to_record, claimed) if is_id(record.id)]


def is_id(text: str) -> bool:
    """Whether a text may be the id of a record."""
    return text.isascii() and text.isprintable()


def to_records(rows: Iterable[Sequence[Any]]) -> list[Record]:
    """What is read for somebody to look at. A row in a state that nobody knows is no record, and a time that
    no calendar has is the nearest that one has.
    """
    return [to_record(_in_calendar(row)) for row in rows if row[STATE] in STATES]


def _in_calendar(row: Sequence[Any]) -> Sequence[Any]:
    strange = {at for at in TIMES if row[at] is not None and not 0 <= row[at] <= LATEST}
    if not strange:
        return row
    return [min(max(value, 0), LATEST) if at in strange else value for at, value in enumerate(row)]


def to_record(row: Sequence[Any]) -> Record:
    values = list(row)
    values[STATE], values[CANCEL_REQUESTED] = State(row[STATE]), bool(row[CANCEL_REQUESTED])
    return Record._make(values)


CANCEL_REQUESTED = Record._fields.index("cancel_requested")
TIMES = [Record._fields.index(name) for name in Record._fields if name.endswith(("_at", "_until"))]
LATEST = 253_370_764_800.0  # the last year that has four digits
STATES = frozenset(map(str, State))
