"""What `segundo doctor` counts of a ledger: how many records, in which queues, and how long they wait."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from segundo.ledger.visiting import Glimpse, Visitor
from segundo.record import TERMINAL, State, made_at

A_DAY = 86400.0


class Waiting(NamedTuple):
    """What waits in a queue. `late`: seconds since the first of it could have run; None: nothing is due.

    `published`: a broker has messages about some of it.
    """

    queue: str
    queued: int
    late: float | None = None
    published: bool = False


class Early(NamedTuple):
    """A record that the ledger's clock dates before its own id, which its host's clock made."""

    seconds: float = 0.0
    id: str = ""


class Backlog:
    """All that a walk over the records counts; empty before."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter()
        self.queues: set[str] = set()  # of every record that is still there
        self.unknown: Counter[str] = Counter()  # put off, by task: no process knew it
        self.waiting: list[Waiting] = []
        self.longest = 0.0  # seconds that an attempt of a record which has not ended may take, or has taken
        self.early = Early()  # the earliest of a day
        self.nobody = False  # no process works on the ledger
        self._queued: Counter[str] = Counter()

    def take(self, visitor: Visitor, now: float) -> None:
        """Look at every record. `now`: the ledger's time."""
        for seen in visitor.walk():
            self._count(seen)
            if seen.created_at > now - A_DAY:
                self.early = max(self.early, Early(made_at(seen.id) - seen.created_at, seen.id))
        self.waiting = list(self._waiting(visitor, now))
        longest = visitor.longest()
        if longest is not None and longest.started_at is not None:
            self.longest = max(self.longest, now - longest.started_at)

    def _count(self, seen: Glimpse) -> None:
        self.states[seen.state] += 1
        self.queues.add(seen.queue)
        if seen.state == State.QUEUED:
            self._queued[seen.queue] += 1
            if seen.reason == "UnknownTask":
                self.unknown[seen.task] += 1
        if seen.state not in TERMINAL:
            self.longest = max(self.longest, seen.timeout or 0.0)

    def _waiting(self, visitor: Visitor, now: float) -> Iterator[Waiting]:
        for queue, queued in sorted(self._queued.items()):
            due = visitor.oldest_due([queue])
            late = None if due is None or due > now else now - due
            yield Waiting(queue, queued, late, visitor.published(queue, now))
