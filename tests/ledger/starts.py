"""Where a record can stand when something happens to it: one function for each start, by its name."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from segundo.ledger import Ledger
from segundo.record import Call, Record, State, new_id
from tests.ledger.suite import START, Stage, after, call, settlement

ABSENT = "absent"
FAR = START + 1e6
KEY = "its-key"
Maker = Callable[[Stage], Awaitable["Start"]]


class Start(NamedTuple):
    """The record that the test is about, and the one that it waits for."""

    record: Record
    before: Record | None = None


def its(**fields: object) -> Call:
    """The call of the record that the test is about."""
    return call(**{"key": KEY, "attempts": 3, "crash_limit": 1, "retention": 60.0, **fields})


async def absent(stage: Stage) -> Start:
    nothing = dict.fromkeys(Record._fields)
    return Start(Record(**nothing)._replace(id=new_id(), queue="default", claim=0))  # type: ignore[arg-type]


async def held(stage: Stage) -> Start:
    (record,) = await stage.ledger.record([its(held=True)], owner=stage.me)
    return Start(record)


async def held_for_later(stage: Stage) -> Start:
    (record,) = await stage.ledger.record([its(held=True, run_at=FAR)], owner=stage.me)
    return Start(record)


async def held_by_a_living_other(stage: Stage) -> Start:
    other = await stage.another("other")
    (record,) = await other.record([its(held=True)], owner="other")
    return Start(record)


async def held_by_the_dead(stage: Stage) -> Start:
    (record,) = await stage.left_by_the_dead(its(), run=False)
    return Start(record)


async def held_by_the_dead_behind_another(stage: Stage) -> Start:
    before = await stage.queued(run_at=FAR)
    (record,) = await stage.left_by_the_dead(its(after=after(before.id)), run=False)
    return Start(record, before)


async def due(stage: Stage) -> Start:
    return Start(await stage.queued(**its()._asdict()))


async def future(stage: Stage) -> Start:
    return Start(await stage.queued(**its(run_at=FAR)._asdict()))


async def suspect(stage: Stage) -> Start:
    """Queued, after it took a process down."""
    return Start(await stage.crashed(**its(crash_limit=3)._asdict()))


async def running(stage: Stage) -> Start:
    return Start(await stage.claim((await due(stage)).record))


async def running_to_be_cancelled(stage: Stage) -> Start:
    return Start(await stage.ledger.cancel((await running(stage)).record.id))


async def running_elsewhere(stage: Stage) -> Start:
    return Start(await _claim_by((await due(stage)).record, await stage.another("other"), "other"))


async def running_elsewhere_to_be_cancelled(stage: Stage) -> Start:
    return Start(await stage.ledger.cancel((await running_elsewhere(stage)).record.id))


def promised(make: Maker) -> Maker:
    """Another request was told that its call is the same as this one."""

    async def make_it(stage: Stage) -> Start:
        start = await make(stage)
        (duplicate,) = await stage.ledger.record([its(retention=None)], owner=stage.me)
        assert duplicate.same_as == start.record.id
        return start

    return make_it


async def lost(stage: Stage) -> Start:
    """Running in a process that has died, with a crash budget that is not spent."""
    (record,) = await stage.left_by_the_dead(its())
    return Start(record)


async def lost_and_out_of_budget(stage: Stage) -> Start:
    (record,) = await stage.left_by_the_dead(its(crash_limit=0))
    return Start(record)


async def lost_to_be_cancelled(stage: Stage) -> Start:
    return Start(await stage.ledger.cancel((await lost(stage)).record.id))


async def succeeded(stage: Stage) -> Start:
    return await _ended(stage, State.SUCCEEDED)


async def failed(stage: Stage) -> Start:
    return await _ended(stage, State.FAILED)


async def cancelled(stage: Stage) -> Start:
    return await _ended(stage, State.CANCELLED)


async def cancelled_at_once(stage: Stage) -> Start:
    """What it was to wait for had failed already."""
    before = await stage.ended(State.FAILED)
    (record,) = await stage.ledger.record([its(after=after(before.id))], owner=stage.me)
    return Start(record)


async def _ended(stage: Stage, state: State) -> Start:
    record = (await running(stage)).record
    await stage.ledger.settle([settlement(record, state)])
    return Start(stage.now_is(record))


async def _claim_by(record: Record, ledger: Ledger, owner: str) -> Record:
    (claimed,) = await ledger.claim(owner, ids=[record.id], limit=1)
    return claimed


# What a record waits for, in each state that a record before it can have.


async def a_queued(stage: Stage) -> Record:
    return await stage.queued(run_at=FAR)


async def a_held(stage: Stage) -> Record:
    return await stage.held()


async def a_running(stage: Stage) -> Record:
    return await stage.running(crash_limit=1)


async def one_to_be_cancelled(stage: Stage) -> Record:
    return await stage.ledger.cancel((await stage.running(crash_limit=1)).id)


async def one_lost(stage: Stage) -> Record:
    (record,) = await stage.left_by_the_dead(call(crash_limit=0))
    return record


def behind(
    make_before: Callable[[Stage], Awaitable[Record]], *, on_failure: str = "cancel", held: bool = False
) -> Maker:
    async def make(stage: Stage) -> Start:
        before = await make_before(stage)
        waiting = its(after=after(before.id, on_failure=on_failure), held=held)
        (record,) = await stage.ledger.record([waiting], owner=stage.me)
        return Start(record, before)

    return make


BEFORE = {"a queued": a_queued, "a held": a_held, "a running": a_running, "a doomed": one_to_be_cancelled}
BEFORE["a lost"] = one_lost

STARTS: dict[str, Maker] = {
    ABSENT: absent,
    "held": held,
    "held, for later": held_for_later,
    "held by a living other": held_by_a_living_other,
    "held by the dead": held_by_the_dead,
    "held by the dead, behind another": held_by_the_dead_behind_another,
    "held, behind a queued": behind(a_queued, held=True),
    "held, and another's": promised(held),
    "held, and another's, behind a queued": promised(behind(a_queued, held=True)),
    **{f"behind {name}": behind(make) for name, make in BEFORE.items()},
    **{f"behind {name}, come what may": behind(make, on_failure="run") for name, make in BEFORE.items()},
    "due": due,
    "due, and another's": promised(due),
    "future": future,
    "suspect": suspect,
    "running": running,
    "running, to be cancelled": running_to_be_cancelled,
    "running elsewhere": running_elsewhere,
    "running elsewhere, to be cancelled": running_elsewhere_to_be_cancelled,
    "lost": lost,
    "lost, out of budget": lost_and_out_of_budget,
    "lost, to be cancelled": lost_to_be_cancelled,
    "succeeded": succeeded,
    "failed": failed,
    "cancelled": cancelled,
    "cancelled at once": cancelled_at_once,
}
