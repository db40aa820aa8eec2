"""The workers of this process: how each transaction begins, and says that they live."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from segundo.ledger.mark import NAME, Mark
from segundo.ledger.postgres import statements
from segundo.ledger.postgres.connecting import Connection

logger = logging.getLogger("segundo.ledger")

LEASE = 30.0  # seconds that a worker lives from its last word
PARTS = 3  # how many words a lease is long: one every 10 s


class Worker(NamedTuple):
    """What its row says, to be said again if others took it for dead."""

    number: int
    id: str
    host: str
    pid: int
    durability: str


# How a transaction begins, in one round trip. The lock is of this process alone: where an earlier session of
# it broke while it committed, the next transaction waits until that one has ended, and sees what it did
# (test_a_commit_that_lost_its_session_has_ended_before_the_next_begins).
BEGIN = """
BEGIN; SELECT pg_advisory_xact_lock({lock}); SELECT extract(epoch FROM clock_timestamp())::float8
"""
# The workers table is small. Whoever is held here cannot be taken for dead before the transaction has ended,
# so what it puts into their hands is never nobody's.
STILL_THERE = "; SELECT number FROM workers WHERE number = ANY ('{numbers}') FOR KEY SHARE"
RENEW = """; UPDATE workers SET lease_until = clock_timestamp() + make_interval(secs => {lease})
WHERE number = ANY ('{numbers}') RETURNING number"""
# The server keeps a session's plans: now and then, plans for the tables as they are by now
# (test_a_plan_that_was_made_while_the_ledger_was_empty_does_not_last).
PLAN_AGAIN = "; DISCARD PLANS"


class Workers:
    """Filled on any thread; used by the writer's. `here`: a clock of this process, which never jumps."""

    def __init__(self, lease: float, here: Callable[[], float] = time.monotonic) -> None:
        self.lease = lease
        self.gone = threading.Event()  # nobody is to be kept alive any more
        self._here = here
        self._workers: dict[str, Worker] = {}
        self.lock = secrets.randbits(62)
        self._due = here()
        self._renewing: float | None = None

    def __bool__(self) -> bool:
        return bool(self._workers)

    @property
    def ids(self) -> list[str]:
        return list(self._workers)

    def add(self, worker: Worker) -> None:
        self._workers[worker.id] = worker

    def drop(self, owner: str) -> None:
        self._workers.pop(owner, None)

    def let_die(self) -> None:
        """Say no more of them."""
        self._workers.clear()
        self.gone.set()

    @property
    def numbers(self) -> list[int]:
        """Which rows are theirs."""
        return [worker.number for worker in list(self._workers.values())]

    def until_due(self) -> float:
        """Seconds until the leases are to be renewed. Without workers, too: it keeps up the contact."""
        return max(0.0, self._due - self._here())

    def begin(self, connection: Connection) -> float:
        """Begin a transaction; returns the server's time. Renews the leases if that is due."""
        workers = {worker.number: worker for worker in self._workers.values()}
        self._renewing = self._here() if self.until_due() == 0 else None
        also = STILL_THERE if self._renewing is None else RENEW + PLAN_AGAIN
        text = BEGIN + also if workers else BEGIN
        # Nothing but numbers: as text at once, since psycopg's own composing takes as long as a round trip.
        answers = answers_of(
            connection.execute(
                text.format(lock=self.lock, numbers=as_array(workers), lease=self.lease).encode()
            )
        )
        now: float = answers[1][0][0]
        if workers:
            for number in workers.keys() - {number for (number,) in answers[2]}:
                self._join_again(connection, workers[number], now)
        return now

    def renewed(self) -> None:
        """What `begin` began is committed."""
        if self._renewing is not None:
            self._due = self._renewing + self.lease / PARTS

    def _join_again(self, connection: Connection, worker: Worker, now: float) -> None:
        logger.warning(
            "this process was frozen or cut off for more than %g s, and taken for dead: what it ran is run "
            "by another",
            self.lease,
        )
        connection.execute(statements.ENTER)
        for (mark,) in connection.execute(statements.META, (NAME,)).fetchall():
            raise Mark.read(mark).error()
        connection.execute(statements.JOIN_AGAIN, {**worker._asdict(), "now": now, "lease": self.lease})


def as_array(numbers: Iterable[int]) -> str:
    """As the server writes it."""
    return f"{{{','.join(map(str, numbers))}}}"


def answers_of(cursor: Any) -> list[list[tuple[Any, ...]]]:
    """The rows of each statement that has some."""
    answers: list[list[tuple[Any, ...]]] = []
    while True:
        if cursor.pgresult.nfields:  # `description` would look up the type of each column
            answers.append(cursor.fetchall())
        if not cursor.nextset():
            return answers
