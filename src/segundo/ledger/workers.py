"""The changes that concern processes: a worker joins, leaves, and is taken for dead by another."""

import json
from dataclasses import dataclass, field

from segundo.ledger.changes import Change
from segundo.ledger.mark import check_open
from segundo.ledger.transaction import Transaction
from segundo.record import Record


@dataclass(eq=False, repr=False, slots=True)
class Join(Change[int]):
    """Register a worker, which then lives; its number. Raises LedgerMoved if the ledger is shut to it."""

    order = 0

    owner: str
    durability: str
    moving: bool = field(default=False, kw_only=True)

    def apply(self, tx: Transaction) -> int:
        tx.gate()
        if not self.moving:
            check_open(tx)
        return tx.join(self.owner, self.durability)


@dataclass(eq=False, repr=False, slots=True)
class Leave(Change[None]):
    """Mark a worker as stopping: what it leaves is not counted as a crash."""

    order = 8

    owner: str

    def apply(self, tx: Transaction) -> None:
        tx.run(tx.sql.STOPPING, (self.owner,))


@dataclass(eq=False, repr=False, slots=True)
class Go(Change[bool]):
    """Forget a worker that has left, if nothing is in its hands; True if it is forgotten.

    The last change of a ledger that closes: what came into its hands afterwards would never be taken over
    (test_what_comes_into_the_hands_of_who_leaves_is_taken_over).
    """

    order = 10

    owner: str

    def apply(self, tx: Transaction) -> bool:
        return tx.run(tx.sql.GO, (self.owner,)).rowcount == 1


@dataclass(eq=False, repr=False, slots=True)
class Rescue(Change[list[Record]]):
    """Transitions b and h for all that dead workers left. Who is dead the store says."""

    order = 7

    def apply(self, tx: Transaction) -> list[Record]:
        rescued: list[Record] = []
        for number, owner, host, pid, stopping in tx.dead_workers():
            rescued += self._take_over(tx, owner, _epitaph(host, pid, stopping), crashed=not stopping)
            tx.run(tx.sql.BURY, (number,))
        tx.freed = tx.freed or bool(rescued)
        return rescued

    @staticmethod
    def _take_over(tx: Transaction, owner: str, error: str, *, crashed: bool) -> list[Record]:
        running = tx.records(
            tx.sql.RESCUE_RUNNING, owner=owner, error=error, crashed=int(crashed), now=tx.now
        )
        waiting = tx.records(tx.sql.RESCUE_WAITING, owner=owner, now=tx.now)
        tx.ended([record.id for record in running if record.state.terminal])
        return running + waiting


def _epitaph(host: str, pid: int, stopping: bool) -> str:
    how = "stopped at shutdown" if stopping else "ended"
    message = f"the process that ran it ({host}, pid {pid}) {how} before the attempt did"
    return json.dumps({"type": "WorkerLost", "message": message})
