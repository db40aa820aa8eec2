"""The changes that put records into a process's hands: claimed from the queue, or as they are released."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from segundo.ledger.changes import Change, Release
from segundo.ledger.transaction import Transaction
from segundo.record import Record


@dataclass(eq=False, repr=False, slots=True)
class Start(Change[list[Record]]):
    """Transition bd for what may run at once, b for the rest."""

    order = 2

    records: Sequence[Record]
    owner: str
    limit: int

    def apply(self, tx: Transaction) -> list[Record]:
        ids = [record.id for record in self.records]
        wanted = ids[: self.limit]
        which = {"ids": json.dumps(wanted), "owner": self.owner, "now": tx.now}
        tx.hold(ids)
        # What waits for another does not start: then it is worth asking at once.
        started = set(tx.changed(tx.sql.START, which, wanted, exact=tx.has_links)) if wanted else set[str]()
        if len(started) < len(ids):
            Release([id for id in ids if id not in started], self.owner).apply(tx)
        return [record.claimed(self.owner, tx.now) for record in self.records if record.id in started]


@dataclass(eq=False, repr=False, slots=True)
class Claim(Change[list[Record]]):
    """Transition d. Applied last, so that it sees what the same batch released and freed."""

    order = 9

    owner: str
    limit: int
    queues: Sequence[str] | None
    ids: Sequence[str] | None
    suspect: bool
    but: Sequence[str] = ()

    @classmethod
    def apply_all(cls, changes: Sequence["Claim"], tx: Transaction) -> list[list[Record]]:
        """Of several slots of one process, which each ask for the record of a message: in one statement."""
        together = [change for change in changes if change.is_of_a_message(changes[0].owner)]
        if len(together) < 2:
            return [change.apply(tx) for change in changes]
        ids = [id for change in together for id in change.ids or ()]
        records = {r.id: r for r in cls(changes[0].owner, len(ids), None, ids, suspect=False).apply(tx)}
        return [
            [record] if change in together and (record := records.pop((change.ids or ("",))[0], None))
            else [] if change in together else change.apply(tx)
            for change in changes
        ]  # fmt: skip

    def is_of_a_message(self, owner: str) -> bool:
        """Whether one of this owner's slots asks for what a message named, and for nothing else."""
        ids, queues = self.ids, self.queues
        return (
            ids is not None
            and len(ids) == 1 == self.limit
            and queues is None
            and (self.owner == owner and not self.suspect)
        )

    def apply(self, tx: Transaction) -> list[Record]:
        suspects = min(1, self.limit) if self.suspect else 0
        if self.ids is not None:
            claimed = self._take_ids(tx, tx.sql.CLAIM_SUSPECT_IDS, suspects)
            return claimed + self._take_ids(tx, tx.sql.CLAIM_IDS, self.limit - len(claimed))
        claimed = self._take(tx, tx.sql.CLAIM_SUSPECT, tx.sql.SUSPECT_QUEUES, suspects)
        return claimed + self._take(tx, tx.sql.CLAIM, tx.sql.QUEUES, self.limit - len(claimed))

    def _take_ids(self, tx: Transaction, claim: str, limit: int) -> list[Record]:
        ids, queues = json.dumps(self.ids), None if self.queues is None else json.dumps(self.queues)
        if limit <= 0:
            return []
        return _in_order(tx.claimed(claim, ids=ids, queues=queues, owner=self.owner, now=tx.now, limit=limit))

    def _take(self, tx: Transaction, claim: str, queues: str, limit: int) -> list[Record]:
        taken: list[Record] = []
        if limit <= 0:
            return taken
        names = self._others(tx.column(queues)) if self.queues is None else list(self.queues)
        for queue in self._turn(names, tx.now):
            if len(taken) < limit:
                taken += tx.claimed(
                    claim, queue=queue, owner=self.owner, now=tx.now, limit=limit - len(taken)
                )
        return _in_order(taken)

    def _others(self, queues: list[str]) -> list[str]:
        return [queue for queue in queues if queue not in self.but] if self.but else queues

    @staticmethod
    def _turn(queues: list[str], now: float) -> list[str]:
        """Begin with another queue each time, so that a busy one does not starve those behind it."""
        first = int(now * 1000) % len(queues) if queues else 0
        return queues[first:] + queues[:first]


def _in_order(records: list[Record]) -> list[Record]:
    return sorted(records, key=lambda record: (-record.priority, record.run_at, record.id))
