"""Visitors: who reads a ledger without joining it, and what they see of it."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol, Self

from segundo.record import Record, State


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


class Looks(Protocol):
    """What a visitor of any ledger sees. A long answer comes in short reads, so it is not of one moment."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...

    def find(self, prefix: str) -> Record:
        """The record whose id is, or alone begins with, `prefix`. Raises UnknownRecord."""
        ...

    def records(self, *, state: State | None, task: str | None, limit: int) -> Iterator[Record]:
        """Up to `limit` records, the newest first, of this state and task where they are given."""
        ...

    def waits_for(self, record: Record) -> list[str]:
        """What this one waits for: see `segundo.record.waits_for`."""
        ...

    def walk(self) -> Iterator[Glimpse]:
        """Every record, the newest first."""
        ...

    def workers(self) -> list[Worker]:
        """The processes that joined. Which of them live is asked, and nothing is taken from the dead."""
        ...

    def notes(self) -> dict[str, str]:
        """What is said of the ledger as a whole."""
        ...

    def longest(self) -> Record | None:
        """The record whose attempt has run for the longest."""
        ...

    def orphans(self) -> int:
        """How many records are in the hands of nobody that the ledger knows: none, if all is well."""
        ...

    def oldest_due(self) -> float | None:
        """When the first of the queued records may be claimed, or could have been."""
        ...
