"""The change that leases records for messages to a broker: what is due, and about which it has none."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from segundo.ledger import Published
from segundo.ledger.changes import Change
from segundo.ledger.transaction import Transaction
from segundo.record import Record

BUSY = 0.05  # seconds until a queue is looked at again of which another process is just publishing


@dataclass(eq=False, repr=False, slots=True)
class Publish(Change[Published]):
    """Transition j of what is queued. Applied late: it sees what the same batch released and freed."""

    order = 8

    queues: Sequence[str] | None
    but: Sequence[str]
    window: int
    limit: int
    lease: float
    lost: float | None

    def apply(self, tx: Transaction) -> Published:
        leased: list[Record] = []
        moments: list[float] = []
        full = False
        for queue in self._queues(tx):
            if self.lost is not None:
                tx.run(tx.sql.LOSE, {"queue": queue, "before": tx.now - self.lost + self.lease})
            if not tx.may_publish(queue):
                moments.append(tx.now + BUSY)
                continue
            open_, lease_ends = tx.run(tx.sql.PUBLISHED, {"queue": queue, "now": tx.now}).fetchone()
            room = self.window - open_
            found = self._lease(tx, queue, min(room, self.limit - len(leased)))
            full = full or len(found) >= room
            leased += found
            moments += _known(lease_ends, tx.value(tx.sql.NEXT_TO_PUBLISH, queue=queue, now=tx.now))
        if len(leased) == self.limit:
            return Published(leased, 0.0, full)
        moments += [tx.now + self.lease] if leased else []
        return Published(leased, max(0.0, min(moments) - tx.now) if moments else None, full)

    def _lease(self, tx: Transaction, queue: str, room: int) -> list[Record]:
        leased: list[Record] = []
        for statement in (tx.sql.PUBLISH_SUSPECT, tx.sql.PUBLISH):
            if room > len(leased):
                leased += tx.records(
                    statement,
                    queue=queue,
                    now=tx.now,
                    until=tx.now + self.lease,
                    limit=room - len(leased),
                )
        return sorted(leased, key=lambda record: (-record.priority, record.run_at, record.id))

    def _queues(self, tx: Transaction) -> list[str]:
        if self.queues is not None:
            return list(self.queues)
        found = {*tx.column(tx.sql.QUEUES), *tx.column(tx.sql.SUSPECT_QUEUES)}
        return sorted(found.difference(self.but))


def _known(*moments: float | None) -> Iterable[float]:
    return (moment for moment in moments if moment is not None)
