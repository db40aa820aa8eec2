"""The changes that a ledger's writer makes: one class for each verb.

A change knows how to apply itself inside a transaction, and, where many of a kind come together, how to apply
all of them in a few statements. Each is idempotent: after a commit whose outcome is unknown it is simply
applied again.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from segundo.errors import UnknownRecord
from segundo.ledger.transaction import Transaction, in_vain, to_record, to_records
from segundo.record import Call, Link, Record, State

T = TypeVar("T")


@dataclass(eq=False, repr=False, slots=True)
class Change(ABC, Generic[T]):
    """One wish to change the ledger. `again`: it may have been applied before, and the outcome was lost.

    Two of the same are two; and what may be secret is not shown.
    """

    order: ClassVar[int]  # in which order the kinds of a batch are applied

    again: bool = field(default=False, init=False)
    begun: bool = field(default=False, init=False)
    unwanted: bool = field(default=False, init=False)
    in_full: bool = field(default=False, init=False)  # in fewer steps it came to nothing

    # Each sets its own mark before it looks at the other's, so of a writer and a waiter at the same moment at
    # least one sees the other.

    def begin(self) -> bool:
        """The writer's, inside the transaction: False if nobody wants it any more."""
        self.begun = True
        return not self.unwanted

    def undone(self) -> None:
        """The writer's: what it had begun is not in the file."""
        self.begun = False

    def give_up(self) -> bool:
        """The waiter's: True if it will never be applied, False if it may be in the file already."""
        self.unwanted = True
        return not self.begun

    @abstractmethod
    def apply(self, tx: Transaction) -> T:
        """Make the change in a transaction. Made again, after a lost outcome, it does no more than once."""

    @classmethod
    def apply_all(cls, changes: Sequence[Any], tx: Transaction) -> list[Any]:
        return [change.apply(tx) for change in changes]


@dataclass(eq=False, repr=False, slots=True)
class RecordCalls(Change[list[Record]]):
    """Transition a: all of the calls or none."""

    order = 1

    calls: Sequence[Call]
    owner: str

    @property
    def held(self) -> bool:
        """Whether nobody may claim them before their owner says so."""
        return all(call.held for call in self.calls)

    @classmethod
    def apply_all(
        cls, changes: Sequence["RecordCalls"], tx: Transaction
    ) -> list[list[Record] | UnknownRecord]:
        # Calls with a key or a predecessor look at other rows: each is stored before the next is looked at.
        free = {change: change._unlinked(tx) for change in changes if not change._looks_at_others()}
        if len(free) < len(changes):
            tx.hold_keys(call for change in changes for call in change.calls)
        tx.insert([record for records in free.values() for record in records])
        return [
            change._read_back(tx)
            if change in free and change.again
            else free.get(change) or change._linked(tx)
            for change in changes
        ]

    def _linked(self, tx: Transaction) -> list[Record] | UnknownRecord:
        unknown = self._unknown(tx)
        if unknown is not None:
            return unknown
        records = self.apply(tx)
        return self._read_back(tx) if self.again else records

    def _unknown(self, tx: Transaction) -> UnknownRecord | None:
        """Asked before anything is written: the batch can go on without this change."""
        known: set[str] = set()
        for call in self.calls:
            for link in call.after:
                if link.before not in known and self._before(link, tx) is None:
                    return _no_record(link, call)
            known.add(call.id)
        return None

    def apply(self, tx: Transaction) -> list[Record]:
        tx.hold_keys(self.calls)
        return [self._store(call, tx) for call in self.calls]

    def _read_back(self, tx: Transaction) -> list[Record]:
        """As they were stored the first time: what they looked at may have changed since."""
        rows = tx.run(tx.sql.SELECT_IDS, (json.dumps([call.id for call in self.calls]),)).fetchall()
        stored = {record.id: record for record in map(to_record, rows)}
        return [stored[call.id] for call in self.calls]

    def _looks_at_others(self) -> bool:
        return any(call.key is not None or call.after for call in self.calls)

    def _unlinked(self, tx: Transaction) -> list[Record]:
        return [_new(call, self.owner, tx.now) for call in self.calls]

    def _store(self, call: Call, tx: Transaction) -> Record:
        new = _new(call, self.owner, tx.now)
        record, links = self._wait(new, call, tx)  # first: what a duplicate names must exist, too
        live = None if call.key is None else tx.value(tx.sql.LIVE_KEY, call.task, call.key, call.id)
        if live is not None:
            record, links = _ended(new, "Duplicate", tx.now)._replace(same_as=live), []
        # Links lead from what is new to what is there, so none is ever part of a circle
        # (test_a_call_that_is_recorded_again_waits_for_nothing_new).
        tx.queued = tx.queued or record.state is State.QUEUED
        if tx.run(tx.sql.INSERT, record).rowcount:
            for link in links:
                tx.run(tx.sql.LINK, (link.before, record.id, link.on_failure))
        return record

    @staticmethod
    def _before(link: Link, tx: Transaction) -> tuple[str, str] | None:
        """The id and the state of the record that a link leads to."""
        found: tuple[str, str] | None = tx.run(tx.sql.BEFORE, {"id": link.before}).fetchone()
        return found

    def _wait(self, record: Record, call: Call, tx: Transaction) -> tuple[Record, list[Link]]:
        links: list[Link] = []
        for link in call.after:
            found = self._before(link, tx)
            if found is None:
                raise _no_record(link, call)
            before, state = found
            if not State(state).terminal:
                links.append(Link(before, link.on_failure))
            elif state != State.SUCCEEDED and link.on_failure == "cancel":
                return _ended(record, "PredecessorFailed", tx.now)._replace(error=in_vain(before)), []
        return (record._replace(state=State.WAITING) if links else record), links


def _no_record(link: Link, call: Call) -> UnknownRecord:
    if link.before == call.id:
        return UnknownRecord(f"after={link.before!r}: a call cannot wait for itself")
    return UnknownRecord(
        f"after={link.before!r}: there is no such record. A call waits for what was recorded or added before "
        "it; what has ended is deleted after its retention"
    )


def _new(call: Call, owner: str, now: float) -> Record:
    return Record(  # by position, which is three times as fast: one is made for every call
        call.id,
        call.task,
        call.queue,
        call.priority,
        State.WAITING if call.held else State.QUEUED,
        None,  # reason
        owner if call.held else None,
        0,  # claim
        0,  # failures
        0,  # crashes
        call.attempts,
        call.crash_limit,
        call.key,
        None,  # same_as
        call.retry_of,
        call.format,
        call.arguments,
        call.carried,
        None,  # result
        None,  # error
        None,  # progress
        call.retention,
        False,  # cancel_requested
        now,  # created_at
        now + call.delay if call.run_at is None else call.run_at,
        None,  # started_at
        None,  # finished_at
        None,  # published_until
        call.timeout,
        call.wipe,
    )


def _ended(record: Record, reason: str, now: float) -> Record:
    ended = record._replace(state=State.CANCELLED, reason=reason, owner=None, finished_at=now)
    return ended if ended.wipe is None else ended._replace(arguments=None, carried=None)


@dataclass(eq=False, repr=False, slots=True)
class Release(Change[None]):
    """Transition b."""

    order = 2

    ids: Sequence[str]
    owner: str

    def apply(self, tx: Transaction) -> None:
        tx.queued = True
        tx.hold(self.ids)  # the links to it are to be those of this moment
        tx.run(tx.sql.RELEASE, (tx.now, json.dumps(self.ids), self.owner))

    @classmethod
    def apply_all(cls, changes: Sequence["Release"], tx: Transaction) -> list[None]:
        for owner in {change.owner for change in changes}:
            ids = [id for change in changes if change.owner == owner for id in change.ids]
            cls(ids, owner).apply(tx)
        return [None] * len(changes)


@dataclass(eq=False, repr=False, slots=True)
class Cancel(Change[Record]):
    """Transition i for what does not run, j (a wish) for what does."""

    order = 4

    id: str

    def apply(self, tx: Transaction) -> Record:
        tx.hold([self.id])  # it shall not begin, nor end, in between
        ended = tx.cancelled([self.id], "Cancelled")
        if ended:
            tx.run(tx.sql.FORGET_LINKS, (json.dumps(ended),))
            tx.ended(ended)
        elif tx.run(tx.sql.ASK_CANCEL, (self.id,)).rowcount:
            tx.asked = True
        found = to_records(tx.run(tx.sql.SELECT_IDS, (json.dumps([self.id]),)).fetchall())
        if not found:
            raise UnknownRecord(f"no record has the id {self.id!r}")
        return found[0]


@dataclass(eq=False, repr=False, slots=True)
class Progress(Change[bool]):
    """Transition j: the holder of the claim says how far it is."""

    order = 4

    id: str
    claim: int
    progress: str

    def apply(self, tx: Transaction) -> bool:
        return tx.run(tx.sql.PROGRESS, (self.progress, self.id, self.claim)).rowcount == 1


@dataclass(eq=False, repr=False, slots=True)
class Prune(Change[int]):
    """Transition l."""

    order = 6

    older_than: float | None
    limit: int

    def apply(self, tx: Transaction) -> int:
        if self.older_than is None:
            pruned = tx.run(tx.sql.PRUNE, (tx.now, self.limit)).rowcount
        else:
            pruned = tx.run(tx.sql.PRUNE_OLD, (tx.now - self.older_than, self.limit)).rowcount
        tx.give_back()
        return pruned
