"""The changes that a move makes in the ledger that it leaves, and in the one that it goes to."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from segundo.errors import NotAllowed
from segundo.ledger.changes import Change
from segundo.ledger.mark import NAME, Mark, mark_of
from segundo.ledger.transaction import Transaction, to_record
from segundo.record import Record, State

SIZE = 4 * 2**20  # characters of payloads in one batch, about; one record may have more
COPYING, WHOLE = "copying", "whole"  # what the other ledger says of a move that comes in


class Links(NamedTuple):
    """A row of the table: what still waits for what."""

    before: str
    after: str
    on_failure: str


class Batch(NamedTuple):
    """Records that move together, by id, and what they wait for."""

    records: list[Record]
    links: list[Links]


# Where the records are


@dataclass(eq=False, repr=False, slots=True)
class Shut(Change[bool]):
    """Let nobody enter this ledger any more; False if somebody but `owner` is there.

    A second call does the same. Raises NotAllowed if something is in the hands of nobody who is known.
    """

    order = 1

    owner: str
    mark: Mark

    def apply(self, tx: Transaction) -> bool:
        tx.gate(shut=True)
        if tx.column(tx.sql.OTHERS, self.owner):
            return False
        if tx.value(tx.sql.IN_HAND):
            raise NotAllowed(
                "records in it are in the hands of no process: perhaps a move into it was not finished; "
                "`segundo doctor` says more"
            )
        tx.run(tx.sql.SET_META, (NAME, self.mark.write()))
        return True


@dataclass(eq=False, repr=False, slots=True)
class ReadMark(Change[Mark | None]):
    """What is said of this ledger now."""

    order = 1

    def apply(self, tx: Transaction) -> Mark | None:
        return mark_of(tx)


@dataclass(eq=False, repr=False, slots=True)
class Count(Change[int]):
    """How many records there are: `ended`, of any state, else those that have not ended."""

    order = 1

    ended: bool = field(kw_only=True)

    def apply(self, tx: Transaction) -> int:
        return int(tx.value(tx.sql.ALL_THERE if self.ended else tx.sql.LIVE))


@dataclass(eq=False, repr=False, slots=True)
class Read(Change[Batch]):
    """The next batch behind the id `after`, of at most `limit` records and some megabytes.

    Raises NotAllowed for an id that is not found again: SQLite ends one at the character NUL.
    """

    order = 1

    after: str
    limit: int
    ended: bool = field(kw_only=True)

    def apply(self, tx: Transaction) -> Batch:
        found = next_ids(tx, self.after, self.limit, ended=self.ended)
        ids = json.dumps(found)
        records = [to_record(row) for row in tx.run(tx.sql.SELECT_IDS, (ids,)).fetchall()]
        for id in set(found).difference(record.id for record in records):
            raise NotAllowed(
                f"{ascii(id)[:80]} is the id of no Segundo: delete its row, for nothing finds it"
            )
        links = [Links._make(row) for row in tx.run(tx.sql.LINKS, (ids,)).fetchall()]
        return Batch(records[::-1], links)


def next_ids(tx: Transaction, after: str, limit: int, *, ended: bool) -> list[str]:
    """The first ids behind `after`: as many as fit, and one at least if there is one."""
    ids: list[str] = []
    size = 0
    for id, length in tx.run(tx.sql.TO_MOVE, {"after": after, "ended": ended, "limit": limit}).fetchall():
        size += length
        if ids and size > SIZE:
            break
        ids.append(id)
    return ids


@dataclass(eq=False, repr=False, slots=True)
class Decide(Change[bool]):
    """From here on the records are there, and not here; False if not just `count` have not ended."""

    order = 1

    mark: Mark
    count: int

    def apply(self, tx: Transaction) -> bool:
        if tx.value(tx.sql.LIVE) != self.count:
            return False
        tx.run(tx.sql.SET_META, (NAME, replace(self.mark, done=True).write()))
        return True


@dataclass(eq=False, repr=False, slots=True)
class Discard(Change[list[str]]):
    """Delete the next of what has moved, behind the id `after`; their ids."""

    order = 1

    after: str
    limit: int
    ended: bool = field(kw_only=True)

    def apply(self, tx: Transaction) -> list[str]:
        ids = next_ids(tx, self.after, self.limit, ended=self.ended)
        tx.run(tx.sql.FORGET_LINKS, (json.dumps(ids),))
        tx.run(tx.sql.DISCARD, (json.dumps(ids),))
        tx.give_back()
        return ids


# Where they go


@dataclass(eq=False, repr=False, slots=True)
class Welcome(Change[None]):
    """Expect records of a move; a second call goes on with it.

    Raises NotAllowed if this ledger's own records are just moving elsewhere. A ledger that all have left is
    opened again.
    """

    order = 1

    holder: str

    def apply(self, tx: Transaction) -> None:
        tx.gate(shut=True)
        mark = mark_of(tx)
        if mark is not None and (not mark.done or tx.value(tx.sql.LIVE)):
            raise NotAllowed(f"its own records are moving to {mark.to}: finish that `segundo move` first")
        tx.run(tx.sql.DROP_META, (NAME,))
        tx.run(tx.sql.SET_META, (self.holder, COPYING))


@dataclass(eq=False, repr=False, slots=True)
class TakeIn(Change[None]):
    """Store a batch, whose live records `holder` holds: nobody may claim them yet.

    What is there already is the same: a batch that comes twice does nothing. Raises NotAllowed, and stores
    none, if one is there that did not come by this move, or a live one of the same task has its key.
    """

    order = 1

    batch: Batch
    holder: str

    def apply(self, tx: Transaction) -> None:
        if tx.value(tx.sql.META, self.holder) != COPYING:
            raise NotAllowed("this move was finished by another `segundo move`")
        live = [record for record in self.batch.records if not record.state.terminal]
        self._check_ids(live, tx)
        self._check_keys(live, tx)
        tx.insert_whole([self._held(record) for record in self.batch.records])
        for link in self.batch.links:
            tx.run(tx.sql.LINK, link)

    def _held(self, record: Record) -> Record:
        if record.state.terminal:
            return record._replace(published_until=None)
        return record._replace(state=State.WAITING, owner=self.holder, published_until=None)

    def _check_ids(self, live: Sequence[Record], tx: Transaction) -> None:
        ids = json.dumps([record.id for record in live])
        stranger = tx.value(tx.sql.STRANGERS, ids=ids, holder=self.holder)
        if stranger is not None:
            raise NotAllowed(f"{stranger} is there already, and did not come by this move")

    @staticmethod
    def _check_keys(live: Sequence[Record], tx: Transaction) -> None:
        keyed = [record for record in live if record.key is not None]
        tx.hold_keys(keyed)
        for record in keyed:
            other = tx.value(tx.sql.LIVE_KEY, record.task, record.key, record.id)
            if other is not None:
                raise NotAllowed(
                    f"{record.printable_task} {record.id} has the key {record.key!r}, and so has {other} "
                    "there: cancel that one, or wait until it has ended, and run the same command again"
                )


@dataclass(eq=False, repr=False, slots=True)
class Whole(Change[None]):
    """All are here: take in no more."""

    order = 1

    holder: str

    def apply(self, tx: Transaction) -> None:
        tx.run(tx.sql.SET_META, (self.holder, WHOLE))


@dataclass(eq=False, repr=False, slots=True)
class LetGo(Change[int]):
    """Transition b, for the next of what `holder` holds; how many there were."""

    order = 2

    holder: str
    limit: int

    def apply(self, tx: Transaction) -> int:
        ids = tx.column(tx.sql.HELD, self.holder, self.limit)
        tx.hold(ids)  # the links to it are to be those of this moment
        tx.run(tx.sql.LET_GO, (json.dumps(ids), self.holder))
        tx.freed = tx.freed or bool(ids)
        return len(ids)


@dataclass(eq=False, repr=False, slots=True)
class Arrived(Change[None]):
    """The move is over: nothing is said of it any more."""

    order = 2

    holder: str

    def apply(self, tx: Transaction) -> None:
        tx.run(tx.sql.DROP_META, (self.holder,))
