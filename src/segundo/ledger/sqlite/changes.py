"""The changes that the writer makes to the file: one class for each verb of the ledger.

A change knows how to apply itself inside a transaction, and, where many of a kind come together, how to apply
all of them in a few statements. Each is idempotent: after a commit whose outcome is unknown it is simply
applied again.
"""

import json
import operator
from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from segundo.errors import UnknownRecord
from segundo.ledger import Beat, Settlement
from segundo.ledger.sqlite import statements as sql
from segundo.ledger.sqlite.transaction import Transaction, to_record
from segundo.record import Call, Link, Record, State

T = TypeVar("T")


class Change(ABC, Generic[T]):
    """One wish to change the ledger. `again`: it may have been applied before, and the outcome was lost."""

    __slots__ = ("again", "begun", "unwanted")
    order: ClassVar[int]  # in which order the kinds of a batch are applied

    def __init__(self) -> None:
        self.again = self.begun = self.unwanted = False

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


class RecordCalls(Change[list[Record]]):
    """Transition a: all of the calls or none."""

    __slots__ = ("calls", "owner")
    order = 1

    def __init__(self, calls: Sequence[Call], owner: str) -> None:
        super().__init__()
        self.calls = calls
        self.owner = owner

    @property
    def held(self) -> bool:
        """Whether nobody may claim them before their owner says so."""
        return all(call.held for call in self.calls)

    @classmethod
    def apply_all(cls, changes: Sequence["RecordCalls"], tx: Transaction) -> list[list[Record]]:
        # Calls with a key or a predecessor look at other rows: each is stored before the next is looked at.
        free = {change: change._unlinked(tx) for change in changes if not change._looks_at_others()}
        _insert(tx, [record for records in free.values() for record in records])
        recorded = [free[change] if change in free else change.apply(tx) for change in changes]
        return [
            change._read_back(tx) if change.again else records
            for change, records in zip(changes, recorded, strict=True)
        ]

    def apply(self, tx: Transaction) -> list[Record]:
        same: dict[str, str] = {}  # our duplicates, and the live records that they are the same as
        return [self._store(call, same, tx) for call in self.calls]

    def _read_back(self, tx: Transaction) -> list[Record]:
        """As they were stored the first time: what they looked at may have changed since."""
        rows = tx.run(sql.SELECT_IDS, (json.dumps([call.id for call in self.calls]),)).fetchall()
        stored = {record.id: record for record in map(to_record, rows)}
        return [stored[call.id] for call in self.calls]

    def _looks_at_others(self) -> bool:
        return any(call.key is not None or call.after for call in self.calls)

    def _unlinked(self, tx: Transaction) -> list[Record]:
        return [_new(call, self.owner, tx.now) for call in self.calls]

    def _store(self, call: Call, same: dict[str, str], tx: Transaction) -> Record:
        record = _new(call, self.owner, tx.now)
        live = self._live(call, tx)
        if live is not None:
            same[call.id] = live
            record = _ended(record, "Duplicate", tx.now)._replace(same_as=live)
        else:
            links = [Link(same.get(link.before, link.before), link.on_failure) for link in call.after]
            record = self._wait(record, links, tx)
        tx.run(sql.INSERT, record)
        return record

    def _live(self, call: Call, tx: Transaction) -> str | None:
        return None if call.key is None else tx.value(sql.LIVE_KEY, call.task, call.key, call.id)

    def _wait(self, record: Record, links: Sequence[Link], tx: Transaction) -> Record:
        for link in links:
            state = tx.value(sql.STATE_OF, link.before)
            if state is None:
                raise UnknownRecord(f"after={link.before!r}: no such record; it may have been pruned")
            if not State(state).terminal:
                tx.run(sql.LINK, (link.before, record.id, link.on_failure))
                record = record._replace(state=State.WAITING)
            elif state != State.SUCCEEDED and link.on_failure == "cancel":
                return _ended(record, "PredecessorFailed", tx.now)
        return record


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
    )


def _insert(tx: Transaction, records: Sequence[Record]) -> None:
    common = [record for record in records if _is_common(record)]
    tx.run_many(
        sql.INSERT_COMMON, [(*_head(record), record.state.value, *_tail(record)) for record in common]
    )
    if len(common) < len(records):
        tx.run_many(sql.INSERT, [record for record in records if not _is_common(record)])


# What sqlite3 is given as a plain tuple of plain values it binds without looking for adapters.
_STATE = sql.COMMON.index("state")
_head, _tail = (
    operator.itemgetter(*map(Record._fields.index, columns))
    for columns in (sql.COMMON[:_STATE], sql.COMMON[_STATE + 1 :])
)


def _is_common(record: Record) -> bool:
    return record.carried is None and record.retry_of is None and record.timeout is None


def _ended(record: Record, reason: str, now: float) -> Record:
    return record._replace(state=State.CANCELLED, reason=reason, owner=None, finished_at=now)


class Release(Change[None]):
    """Transition b."""

    __slots__ = ("ids", "owner")
    order = 2

    def __init__(self, ids: Sequence[str], owner: str) -> None:
        super().__init__()
        self.ids = ids
        self.owner = owner

    def apply(self, tx: Transaction) -> None:
        tx.run(sql.RELEASE, (tx.now, json.dumps(self.ids), self.owner))

    @classmethod
    def apply_all(cls, changes: Sequence["Release"], tx: Transaction) -> list[None]:
        for owner in {change.owner for change in changes}:
            ids = [id for change in changes if change.owner == owner for id in change.ids]
            cls(ids, owner).apply(tx)
        return [None] * len(changes)


class Settle(Change[list[bool]]):
    """Transitions e, f, g."""

    __slots__ = ("settlements", "unsure")
    order = 3

    def __init__(self, settlements: Sequence[Settlement], unsure: Container[tuple[str, int]] = ()) -> None:
        super().__init__()
        self.settlements = settlements
        self.unsure = (
            unsure  # claims (id, number) whose settlement failed before, and may be stored all the same
        )

    def apply(self, tx: Transaction) -> list[bool]:
        return self.apply_all([self], tx)[0]

    @classmethod
    def apply_all(cls, changes: Sequence["Settle"], tx: Transaction) -> list[list[bool]]:
        settlements = [settlement for change in changes for settlement in change.settlements]
        plain: dict[str, int] = {}  # one for each id: an old claim and the new one can meet in a batch
        for place, settlement in enumerate(settlements):
            if _is_plain_success(settlement):
                plain.setdefault(settlement.id, place)
        ended = _succeed(tx, [settlements[place] for place in plain.values()])
        settled = {plain[id] for id in ended}
        for place, settlement in enumerate(settlements):
            if plain.get(settlement.id) == place:
                continue
            state = tx.value(sql.SETTLE, **_settle_parameters(settlement, tx.now))
            if state is not None:
                settled.add(place)
                ended += [settlement.id] if State(state).terminal else []
        tx.ended(ended)
        places = iter(range(len(settlements)))
        return [
            [next(places) in settled or change._settled_before(s, tx) for s in change.settlements]
            for change in changes
        ]

    def _settled_before(self, settlement: Settlement, tx: Transaction) -> bool:
        if not (self.again or (settlement.id, settlement.claim) in self.unsure):
            return False
        return tx.value(sql.SETTLED, **_settle_parameters(settlement, tx.now)) is not None


def _is_plain_success(settlement: Settlement) -> bool:
    return settlement.state is State.SUCCEEDED and settlement.result is None


def _succeed(tx: Transaction, settlements: Sequence[Settlement]) -> list[str]:
    claims = {settlement.id: settlement.claim for settlement in settlements}
    return tx.changed(sql.SUCCEED, (tx.now, json.dumps(claims)), list(claims)) if claims else []


def _settle_parameters(settlement: Settlement, now: float) -> dict[str, object]:
    failed = settlement.counted and settlement.state in (State.FAILED, State.QUEUED)
    return {
        "id": settlement.id,
        "claim": settlement.claim,
        "state": settlement.state,
        "reason": settlement.reason,
        "result": settlement.result,
        "error": settlement.error,
        "delay": settlement.delay,
        "failed": int(failed),
        "now": now,
    }


class Cancel(Change[Record]):
    """Transition i for what does not run, j (a wish) for what does."""

    __slots__ = ("id",)
    order = 4

    def __init__(self, id: str) -> None:
        super().__init__()
        self.id = id

    def apply(self, tx: Transaction) -> Record:
        ended = tx.cancelled([self.id], "Cancelled")
        if ended:
            tx.run(sql.FORGET_LINKS, (json.dumps(ended),))
            tx.ended(ended)
        else:
            tx.run(sql.ASK_CANCEL, (self.id,))
        row = tx.run(sql.SELECT_IDS, (json.dumps([self.id]),)).fetchone()
        if row is None:
            raise UnknownRecord(f"no record has the id {self.id!r}")
        return to_record(row)


class Progress(Change[bool]):
    """Transition j: the holder of the claim says how far it is."""

    __slots__ = ("claim", "id", "progress")
    order = 4

    def __init__(self, id: str, claim: int, progress: str) -> None:
        super().__init__()
        self.id = id
        self.claim = claim
        self.progress = progress

    def apply(self, tx: Transaction) -> bool:
        return tx.run(sql.PROGRESS, (self.progress, self.id, self.claim)).rowcount == 1


class TakeBeat(Change[Beat]):
    """What the ledger thinks runs here, against what does; strays go back (transition g).

    Applied before any claim of its batch, which its sender cannot have counted among what runs.
    """

    __slots__ = ("owner", "running")
    order = 0

    def __init__(self, owner: str, running: Sequence[str]) -> None:
        super().__init__()
        self.owner = owner
        self.running = frozenset(running)

    def apply(self, tx: Transaction) -> Beat:
        rows = tx.run(sql.RUNNING_OF, (self.owner,)).fetchall()
        held = {id for id, _, _ in rows}
        strays = [
            Settlement(id=id, claim=claim, state=State.QUEUED, counted=False)
            for id, claim, _ in rows
            if id not in self.running
        ]
        Settle(strays).apply(tx)
        tx.freed = tx.freed or bool(strays)
        return Beat(
            lost=tuple(self.running - held),
            cancel=tuple(id for id, _, asked in rows if asked and id in self.running),
        )


class Prune(Change[int]):
    """Transition l."""

    __slots__ = ("limit", "older_than")
    order = 6

    def __init__(self, older_than: float | None, limit: int) -> None:
        super().__init__()
        self.older_than = older_than
        self.limit = limit

    def apply(self, tx: Transaction) -> int:
        if self.older_than is None:
            pruned = tx.run(sql.PRUNE, (tx.now, self.limit)).rowcount
        else:
            pruned = tx.run(sql.PRUNE_OLD, (tx.now - self.older_than, self.limit)).rowcount
        return pruned
