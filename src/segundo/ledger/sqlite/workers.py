"""The changes that concern processes: a worker joins, leaves, and is taken for dead by another."""

import json
import os
import socket
from collections.abc import Sequence
from functools import partial

from segundo.ledger.sqlite import statements as sql
from segundo.ledger.sqlite.changes import Change
from segundo.ledger.sqlite.transaction import Transaction
from segundo.record import Record


class Join(Change[int]):
    """Register a worker. Its lock is taken before anyone can see its row, so it never looks dead."""

    __slots__ = ("durability", "owner")
    order = 0

    def __init__(self, owner: str, durability: str) -> None:
        super().__init__()
        self.owner = owner
        self.durability = durability

    def apply(self, tx: Transaction) -> int:
        number = tx.value(sql.JOINED, self.owner)
        if number is None:
            number = tx.value(
                sql.JOIN, self.owner, socket.gethostname(), os.getpid(), self.durability, tx.now
            )
        if tx.turns.live(number):
            # A number that was not kept goes to another process, which must not find it locked.
            tx.if_undone(partial(tx.turns.die, number))
        return int(number)


class Leave(Change[None]):
    """Mark a worker as stopping: what it leaves is not counted as a crash."""

    __slots__ = ("owner",)
    order = 8

    def __init__(self, owner: str) -> None:
        super().__init__()
        self.owner = owner

    def apply(self, tx: Transaction) -> None:
        tx.run(sql.STOPPING, (self.owner,))


class Go(Change[bool]):
    """Forget a worker that has left, if nothing is in its hands; True if it is forgotten.

    The last change of a ledger that closes: what came into its hands afterwards would never be taken over
    (test_what_comes_into_the_hands_of_who_leaves_is_taken_over).
    """

    __slots__ = ("owner",)
    order = 10

    def __init__(self, owner: str) -> None:
        super().__init__()
        self.owner = owner

    def apply(self, tx: Transaction) -> bool:
        return tx.run(sql.GO, (self.owner,)).rowcount == 1


class Rescue(Change[list[Record]]):
    """Transitions b and h for all that dead workers left. The kernel says who is dead, never a clock."""

    __slots__ = ()
    order = 7

    def apply(self, tx: Transaction) -> list[Record]:
        rescued: list[Record] = []
        for number, owner, host, pid, _, stopping in tx.run(sql.WORKERS).fetchall():
            if tx.turns.bury(number):
                tx.afterwards(partial(tx.turns.die, number))
                rescued += self._take_over(tx, owner, _epitaph(host, pid, stopping), crashed=not stopping)
                tx.run(sql.BURY, (number,))
        tx.freed = tx.freed or bool(rescued)
        return rescued

    @staticmethod
    def _take_over(tx: Transaction, owner: str, error: str, *, crashed: bool) -> list[Record]:
        running = tx.records(sql.RESCUE_RUNNING, owner=owner, error=error, crashed=int(crashed), now=tx.now)
        waiting = tx.records(sql.RESCUE_WAITING, owner=owner, now=tx.now)
        tx.ended([record.id for record in running if record.state.terminal])
        return running + waiting


def _epitaph(host: str, pid: int, stopping: Sequence[int] | int) -> str:
    how = "stopped at shutdown" if stopping else "ended"
    message = f"the process that ran it ({host}, pid {pid}) {how} before the attempt did"
    return json.dumps({"type": "WorkerLost", "message": message})
