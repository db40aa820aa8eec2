"""Visitors: who reads a ledger without joining it, and what they see of it."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import ClassVar, NamedTuple, Self

from segundo.errors import LedgerUnavailable, UnknownRecord
from segundo.ledger.reading import Reading
from segundo.ledger.transaction import to_records
from segundo.record import Record, State, waits_for

PAGE, STRETCH = 200, 10_000  # rows of a walk's first read, and of later ones where they are quick to read


class TooLong(LedgerUnavailable):
    """A read would have held on to the store for longer than it may; a shorter one may not."""


class Worker(NamedTuple):
    """A process that joined the ledger. `held`: how many records are in its hands."""

    number: int
    id: str
    host: str
    pid: int
    started_at: float
    stopping: bool
    durability: str
    held: int
    alive: bool


class Glimpse(NamedTuple):
    """What a walk sees of a record."""

    id: str
    state: str
    task: str
    queue: str
    reason: str | None
    timeout: float | None
    created_at: float


class Visitor(Reading):
    """Reads a ledger from outside. A long answer comes in short reads, so it is not of one moment: a record
    that changes meanwhile is seen as it was or as it is.

    To make one raises LedgerUnusable if there is no ledger, or none of ours.
    """

    ask: ClassVar[ModuleType]  # what only visitors ask: the same names in each store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Leave; nothing can be asked any more."""

    # Records

    def find(self, prefix: str) -> Record:
        """The record whose id is, or alone begins with, `prefix`. Raises UnknownRecord."""
        possible = prefix != "" and prefix.isprintable()
        found = [id for (id,) in self._rows(self.ask.FIND, prefix=prefix)] if possible else []
        if not found:
            raise UnknownRecord(f"no record has the id {prefix!r}")
        if len(found) > 1 and found[0] != prefix:
            raise UnknownRecord(f"several records have an id that begins with {prefix!r}; give more of it")
        return self._with_ids(found[:1])[0]

    @abstractmethod
    def records(self, *, state: State | None, task: str | None, limit: int) -> Iterator[Record]:
        """Up to `limit` records, the newest first, of this state and task where they are given."""

    def waits_for(self, record: Record) -> list[str]:
        """What this one waits for: see `segundo.record.waits_for`."""
        waiting = record.state is State.WAITING
        return waits_for(record, self._before([record.id]).get(record.id, []) if waiting else [])

    def walk(self) -> Iterator[Glimpse]:
        """Every record, the newest first."""
        return self._walk(self.ask.WALK)

    def _walk(self, statement: str) -> Iterator[Glimpse]:
        before, limit = self.ask.NEWEST, PAGE
        while True:
            try:
                glimpses = [Glimpse._make(row) for row in self._rows(statement, before=before, limit=limit)]
            except TooLong:
                if limit == 1:
                    raise
                limit = max(1, limit // 8)
                continue
            yield from glimpses
            if len(glimpses) < limit:
                return
            before, limit = glimpses[-1].id, min(2 * limit, STRETCH)

    # The whole

    @abstractmethod
    def schema(self) -> int:
        """The version of the ledger's schema."""

    @abstractmethod
    def workers(self) -> list[Worker]:
        """The processes that joined. Which of them live is asked, and nothing is taken from the dead."""

    def notes(self) -> dict[str, str]:
        """What is said of the ledger as a whole."""
        return dict(self._rows(self.ask.NOTES))

    def longest(self) -> Record | None:
        """The record whose attempt has run for the longest."""
        return next(iter(to_records(self._rows(self.ask.LONGEST))), None)

    def orphans(self) -> int:
        """How many records are in the hands of nobody that the ledger knows: none, if all is well."""
        return int(self._rows(self.ask.ORPHANS)[0][0])

    def oldest_due(self, queues: Iterable[str] | None = None) -> float | None:
        """When the first of what is queued, in these queues or any, may be claimed, or could have been."""
        return self._first_due(self._queues() if queues is None else queues)

    def published(self, queue: str, now: float) -> bool:
        """Whether a relay has leased queued records of this queue for messages, and the leases run."""
        return bool(self._rows(self.sql.PUBLISHED, queue=queue, now=now)[0][0])

    @abstractmethod
    def now(self) -> float:
        """The ledger's time."""
