"""Everything that can be done to a record, by its name, and what is answered where it is not allowed."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from segundo.errors import UnknownRecord
from segundo.ledger import Beat
from segundo.record import Record, State
from tests.ledger.starts import ABSENT, Start, its
from tests.ledger.suite import Stage, after, settlement

LATER = 5.0  # seconds from the start until the verb
DELAY = 10.0
RETENTION_OVER = 100.0

Act = Callable[[Stage, Start], Awaitable[Any]]


async def nothing(stage: Stage) -> None:
    """Most verbs need no other record."""


class Verb(NamedTuple):
    """`family`: the method's name, as in the table of transitions. `refusal`: the answer that says "nothing".

    `prepare` puts another record beside, before the test looks at what there is.
    """

    family: str
    act: Act
    refusal: Any
    prepare: Callable[[Stage], Awaitable[None]] = nothing

    @property
    def says_nothing(self) -> bool:
        return self.refusal is not ANYTHING


async def record(stage: Stage, start: Start) -> Any:
    return await _record(stage, start, held=True)


async def record_outside_a_request(stage: Stage, start: Start) -> Any:
    return await _record(stage, start)


async def record_behind_the_one_beside(stage: Stage, start: Start) -> Any:
    return await _record(stage, start, after=after(_beside(stage).id))


async def record_with_the_key_of_the_one_beside(stage: Stage, start: Start) -> Any:
    return await _record(stage, start, key=_beside(stage).key)


async def put_a_live_one_beside(stage: Stage) -> None:
    stage.beside = await stage.queued(run_at=2e9, key="taken")


async def put_a_failed_one_beside(stage: Stage) -> None:
    stage.beside = await stage.ended(State.FAILED)


def _beside(stage: Stage) -> Record:
    assert stage.beside is not None
    return stage.beside


async def _record(stage: Stage, start: Start, **fields: Any) -> Any:
    recorded = await stage.ledger.record([its(id=start.record.id, **fields)], owner=stage.me)
    return [one.id for one in recorded]


async def record_its_key_again(stage: Stage, start: Start) -> Any:
    (recorded,) = await stage.ledger.record([its(run_at=2e9)], owner=stage.me)
    return recorded.reason


async def release(stage: Stage, start: Start) -> Any:
    return await stage.ledger.release(stage.me, [start.record.id])


async def release_of_another(stage: Stage, start: Start) -> Any:
    return await stage.ledger.release("other", [start.record.id])


def start(owner: str = Stage.me, limit: int = 10) -> Act:
    async def act(stage: Stage, begin: Start) -> Any:
        return await stage.ledger.start(owner, [begin.record], limit=limit)

    return act


def claim(**how: Any) -> Act:
    async def act(stage: Stage, start: Start) -> Any:
        return await stage.ledger.claim(stage.me, **{"limit": 10, **how})

    return act


def claim_it(limit: int = 10, **how: Any) -> Act:
    async def act(stage: Stage, start: Start) -> Any:
        return await stage.ledger.claim(stage.me, ids=[start.record.id], limit=limit, **how)

    return act


def settle(state: State, claim: int = 0, **fields: Any) -> Act:
    """By the claim that the record has at the start, or one so many numbers away."""

    async def act(stage: Stage, start: Start) -> Any:
        number = start.record.claim + claim
        return await stage.ledger.settle([settlement(start.record, state, **{"claim": number, **fields})])

    return act


def settle_the_one_before(state: State) -> Act:
    async def act(stage: Stage, start: Start) -> Any:
        if start.before is None:
            return [False]
        return await stage.ledger.settle([settlement(start.before, state)])

    return act


def settle_with_it_as_a_child(first: dict[str, Any] | None = None, *, behind: bool = False) -> Act:
    """The one beside succeeds, and it is among its child calls; perhaps after a `first` one."""

    async def act(stage: Stage, start: Start) -> Any:
        firsts = () if first is None else (its(**first),)
        links = after(firsts[0].id) if behind else ()
        children = (*firsts, its(id=start.record.id, after=links, held=True))
        return await stage.ledger.settle([settlement(_beside(stage), children=children)])

    return act


async def put_a_running_one_beside(stage: Stage) -> None:
    stage.beside = await stage.running()


async def cancel(stage: Stage, start: Start) -> Any:
    try:
        await stage.ledger.cancel(start.record.id)
    except UnknownRecord:
        return UnknownRecord
    return None


async def cancel_the_one_before(stage: Stage, start: Start) -> Any:
    if start.before is not None:
        await stage.ledger.cancel(start.before.id)


def progress(claim: int = 0) -> Act:
    async def act(stage: Stage, start: Start) -> Any:
        return await stage.ledger.progress(start.record.id, start.record.claim + claim, '"half"')

    return act


LEASE = 30.0


def publish(**how: Any) -> Act:
    async def act(stage: Stage, start: Start) -> Any:
        options = {"queues": None, "window": 10, "limit": 10, "lease": LEASE, **how}
        return list((await stage.ledger.publish(**options)).records)

    return act


async def beat_without_it(stage: Stage, start: Start) -> Any:
    return await stage.ledger.beat(stage.me, running=[])


async def beat_with_it(stage: Stage, start: Start) -> Any:
    beat = await stage.ledger.beat(stage.me, running=[start.record.id])
    return beat.lost


async def rescue(stage: Stage, start: Start) -> Any:
    return await stage.ledger.rescue()


def prune(**how: Any) -> Act:
    async def act(stage: Stage, start: Start) -> Any:
        return await stage.ledger.prune(**how)

    return act


async def prune_in_time(stage: Stage, start: Start) -> Any:
    stage.clock.move(RETENTION_OVER - LATER)
    return await stage.ledger.prune()


async def forget(stage: Stage, start: Start) -> Any:
    await stage.forget(start.record)


async def take_back(stage: Stage, start: Start) -> Any:
    return await stage.ledger.forget(stage.me, [start.record.id])


async def forget_outside_a_request(stage: Stage, start: Start) -> Any:
    await stage.forget(start.record, held=False)


async def forget_the_one_before(stage: Stage, start: Start) -> Any:
    if start.before is not None:
        await stage.forget(start.before)


FAILURE: dict[str, Any] = {"reason": "ValueError", "error": '{"type": "ValueError"}'}
CANCELLATION: dict[str, Any] = {"reason": "Cancelled"}
AGAIN: dict[str, Any] = {**FAILURE, "delay": DELAY}
PUT_BACK: dict[str, Any] = {"delay": DELAY, "counted": False}
ANYTHING = object()  # the answer says nothing of the record at the start

VERBS = {
    "record": Verb("record", record, ANYTHING),
    "record outside a request": Verb("record", record_outside_a_request, ANYTHING),
    "record behind a live one": Verb("record", record_behind_the_one_beside, ANYTHING, put_a_live_one_beside),
    "record behind a failed one": Verb(
        "record", record_behind_the_one_beside, ANYTHING, put_a_failed_one_beside
    ),
    "record with a live key": Verb(
        "record", record_with_the_key_of_the_one_beside, ANYTHING, put_a_live_one_beside
    ),
    "record its key again": Verb("record", record_its_key_again, ANYTHING),
    "release": Verb("release", release, None),
    "release of another": Verb("release", release_of_another, None),
    "start": Verb("start", start(), []),
    "start of another": Verb("start", start("other"), []),
    "start nothing": Verb("start", start(limit=0), []),
    "claim": Verb("claim", claim(), []),
    "claim nothing": Verb("claim", claim(limit=0), []),
    "claim no suspect": Verb("claim", claim(suspect=False), []),
    "claim from its queue": Verb("claim", claim(queues=["default"]), []),
    "claim from another queue": Verb("claim", claim(queues=["another"]), []),
    "claim it": Verb("claim", claim_it(), []),
    "claim it as no suspect": Verb("claim", claim_it(suspect=False), []),
    "claim it from another queue": Verb("claim", claim_it(queues=["another"]), []),
    "settle succeeded": Verb("settle", settle(State.SUCCEEDED), [False]),
    "settle with a result": Verb("settle", settle(State.SUCCEEDED, result='"done"'), [False]),
    "settle failed": Verb("settle", settle(State.FAILED, **FAILURE), [False]),
    "settle cancelled": Verb("settle", settle(State.CANCELLED, **CANCELLATION), [False]),
    "settle again": Verb("settle", settle(State.QUEUED, **AGAIN), [False]),
    "settle put back": Verb("settle", settle(State.QUEUED, **PUT_BACK), [False]),
    "settle waiting": Verb("settle", settle(State.WAITING), [False]),
    "settle running": Verb("settle", settle(State.RUNNING), [False]),
    **{
        f"settle {state} by {name} claim": Verb("settle", settle(state, number, **PUT_BACK), [False])
        for state in (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.QUEUED)
        for name, number in (("an old", -1), ("a later", 1))
    },
    "settle with it as a child": Verb(
        "settle", settle_with_it_as_a_child(), ANYTHING, put_a_running_one_beside
    ),
    "settle with it behind another child": Verb(
        "settle",
        settle_with_it_as_a_child({"key": "another", "run_at": 2e9}, behind=True),
        ANYTHING,
        put_a_running_one_beside,
    ),
    "settle with it as a second child with its key": Verb(
        "settle", settle_with_it_as_a_child({"run_at": 2e9}), ANYTHING, put_a_running_one_beside
    ),
    "settle the one before succeeded": Verb("settle", settle_the_one_before(State.SUCCEEDED), ANYTHING),
    "settle the one before failed": Verb("settle", settle_the_one_before(State.FAILED), ANYTHING),
    "cancel": Verb("cancel", cancel, None),
    "cancel the one before": Verb("cancel", cancel_the_one_before, ANYTHING),
    "progress": Verb("progress", progress(), False),
    "progress by an old claim": Verb("progress", progress(-1), False),
    "publish": Verb("publish", publish(), []),
    "publish from its queue": Verb("publish", publish(queues=["default"]), []),
    "publish other queues": Verb("publish", publish(but=["default"]), []),
    "publish without a window": Verb("publish", publish(window=0), []),
    "beat without it": Verb("beat", beat_without_it, Beat((), ())),
    "beat with it": Verb("beat", beat_with_it, ANYTHING),
    "rescue": Verb("rescue", rescue, []),
    "prune": Verb("prune", prune(), 0),
    "prune in time": Verb("prune", prune_in_time, 0),
    "prune what is older": Verb("prune", prune(older_than=LATER), 0),
    "prune what is much older": Verb("prune", prune(older_than=LATER + 1), 0),
    "forget": Verb("forget", forget, None),
    "take back": Verb("forget", take_back, None),
    "forget outside a request": Verb("forget", forget_outside_a_request, None),
    "forget the one before": Verb("forget", forget_the_one_before, ANYTHING),
}


def refusal(verb: Verb, name: str) -> Any:
    """What `verb` answers when it changes nothing."""
    return UnknownRecord if (verb.family, name) == ("cancel", ABSENT) else verb.refusal
