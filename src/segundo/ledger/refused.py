"""Calls of refused requests that may be in the file all the same: every transaction deletes them first."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from segundo.ledger.changes import Change, Release
from segundo.ledger.transaction import Transaction


@dataclass(eq=False, repr=False, slots=True)
class Forget(Change[None]):
    """Transition k: what a refused request may have recorded is gone, before anything else happens.

    `held`: it was a request's, so nobody but its owner can have let it go on.
    """

    order = 0

    ids: Sequence[str]
    owner: str
    held: bool = field(kw_only=True)

    def apply(self, tx: Transaction) -> None:
        tx.hold(self.ids)
        # What a call of another request was found to be the same as was promised to that client: it stays.
        promised = tx.column(tx.sql.PROMISED, json.dumps(self.ids))
        if promised:
            Release(promised, self.owner).apply(tx)
        ids = json.dumps([id for id in self.ids if id not in promised])
        which = {"ids": ids, "owner": self.owner, "held": self.held}
        gone = [id for (id,) in tx.run(tx.sql.FORGET, which).fetchall()]
        if gone:
            tx.run(tx.sql.FORGET_LINKS, (json.dumps(gone),))
            tx.ended(gone)

    @classmethod
    def apply_all(cls, changes: Sequence["Forget"], tx: Transaction) -> list[None]:
        for owner, held in {(change.owner, change.held) for change in changes}:
            ids = [
                id for change in changes if (change.owner, change.held) == (owner, held) for id in change.ids
            ]
            cls(ids, owner, held=held).apply(tx)
        return [None] * len(changes)


class Refused:
    """What is to be forgotten, from when a request gave up on its calls.

    A request that is refused while the ledger fails cannot wait until it works again; its calls must never
    run all the same (test_a_refused_call_is_forgotten_once_the_ledger_works_again). Filled on any thread,
    emptied by the writer.
    """

    def __init__(self) -> None:
        self._forgets: list[Forget] = []

    def __len__(self) -> int:
        return sum(len(forget.ids) for forget in self._forgets)

    def add(self, ids: Sequence[str], owner: str, *, held: bool) -> None:
        self._forgets.append(Forget(ids, owner, held=held))

    def forget(self, tx: Transaction) -> int:
        """Delete them all; returns how many to `drop` once that is committed."""
        forgets = list(self._forgets)
        if forgets:
            tx.run(tx.sql.FORGOTTEN, (tx.now,))
            Forget.apply_all(forgets, tx)
        return len(forgets)

    def drop(self, number: int) -> None:
        """The first `number` are deleted for good."""
        del self._forgets[:number]
