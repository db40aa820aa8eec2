"""The changes that end attempts: settled by who holds the claim, or put back because nobody runs them."""

import json
import logging
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import partial

from segundo.ledger import Beat, Settlement
from segundo.ledger.changes import Change, RecordCalls
from segundo.ledger.transaction import Transaction
from segundo.record import State

logger = logging.getLogger("segundo.ledger")

CHILD_REFUSED = "ChildRefused"  # the reason of an attempt whose child calls cannot be recorded


@dataclass(eq=False, repr=False, slots=True)
class Settle(Change[list[bool]]):
    """Transitions e, f, g."""

    order = 3

    settlements: Sequence[Settlement]
    unsure: Container[tuple[str, int]] = ()

    def is_of_a_success(self) -> bool:
        """Whether it ends one attempt, which succeeded, and there is nothing more to do or to ask for it."""
        return (
            len(self.settlements) == 1
            and not self.again
            and not self.unsure
            and (it := self.settlements[0]).state is State.SUCCEEDED
            and not it.children
            and it.progress is None
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
            state = _settle(tx, settlement)
            if state is not None:
                settled.add(place)
                tx.queued = tx.queued or state == State.QUEUED
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
        return any(
            tx.value(tx.sql.SETTLED, **_settle_parameters(possible, tx.now)) is not None
            for possible in _possible(settlement)
        )


def _is_plain_success(settlement: Settlement) -> bool:
    return (
        settlement.state is State.SUCCEEDED
        and settlement.result is None
        and not settlement.children
        and settlement.progress is None
    )


def _succeed(tx: Transaction, settlements: Sequence[Settlement]) -> list[str]:
    claims = {settlement.id: settlement.claim for settlement in settlements}
    return tx.changed(tx.sql.SUCCEED, (tx.now, json.dumps(claims)), list(claims)) if claims else []


def _settle(tx: Transaction, settlement: Settlement) -> str | None:
    """One attempt by itself, and its child calls in the same step: it succeeds with all of them, or fails."""
    if settlement.progress is not None:
        tx.run(tx.sql.PROGRESS, (settlement.progress, settlement.id, settlement.claim))
    if not settlement.children:
        return _end(tx, settlement)
    try:
        with tx.step():
            state = _end(tx, settlement)
            if state == State.SUCCEEDED:
                _record_children(tx, settlement)
            return state
    except tx.wrong_call as error:
        # Of all that is settled with it, this one alone has failed
        # (test_a_wrong_child_call_fails_its_parent_and_nothing_else).
        failed = _refused(settlement, error)
        state = _end(tx, failed)
        if state is not None:
            tx.afterwards(partial(logger.error, "record %s failed: %s", settlement.id, failed.error))
        return state


def _end(tx: Transaction, settlement: Settlement) -> str | None:
    state: str | None = tx.value(tx.sql.SETTLE, **_settle_parameters(settlement, tx.now))
    return state


def _record_children(tx: Transaction, settlement: Settlement) -> None:
    calls = [child._replace(held=False) for child in settlement.children]
    recorded = RecordCalls(calls, settlement.id).apply(tx)
    tx.freed = tx.freed or any(record.state is State.QUEUED for record in recorded)


def _refused(settlement: Settlement, error: BaseException) -> Settlement:
    described = {"type": type(error).__name__, "message": f"its child calls cannot be recorded: {error}"}
    return Settlement(
        id=settlement.id,
        claim=settlement.claim,
        state=State.FAILED,
        reason=CHILD_REFUSED,
        error=json.dumps(described),
    )


def _possible(settlement: Settlement) -> list[Settlement]:
    """What may have become of an attempt that was settled so."""
    refused = _refused(settlement, ValueError())
    return [settlement, refused] if settlement.children else [settlement]


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


@dataclass(eq=False, repr=False, slots=True)
class TakeBeat(Change[Beat]):
    """What the ledger thinks runs here, against what does; strays go back (transition g).

    Applied before any claim of its batch, which its sender cannot have counted among what runs.
    """

    order = 0

    owner: str
    running: frozenset[str]

    def apply(self, tx: Transaction) -> Beat:
        rows = tx.run(tx.sql.RUNNING_OF, (self.owner,)).fetchall()
        held = {id for id, *_ in rows}
        strays = [
            Settlement(id=id, claim=claim, state=State.QUEUED, reason=reason, counted=False)
            for id, claim, _, reason in rows
            if id not in self.running
        ]
        Settle(strays).apply(tx)
        tx.freed = tx.freed or bool(strays)
        return Beat(
            lost=tuple(self.running - held),
            cancel=tuple(id for id, _, asked, _ in rows if asked and id in self.running),
        )
