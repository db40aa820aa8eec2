"""Whatever ends a record wipes, in the same step, what is not to be kept of it; nothing else does."""

from collections.abc import Awaitable, Callable

import pytest

from segundo.record import Record, State, Wipe
from tests.ledger.suite import Stage, after, call, settlement

NOT_KEPT = {"arguments": '{"n": 1}', "carried": '{"tenant": "acme"}'}

End = Callable[[Stage, Wipe | None], Awaitable[Record]]


async def success(stage: Stage, wipe: Wipe | None) -> Record:
    return await stage.ended(State.SUCCEEDED, wipe=wipe, **NOT_KEPT)


async def success_with_a_result(stage: Stage, wipe: Wipe | None) -> Record:
    record = await stage.running(wipe=wipe, **NOT_KEPT)
    await stage.ledger.settle([settlement(record, result="1")])
    return record


async def failure(stage: Stage, wipe: Wipe | None) -> Record:
    return await stage.ended(State.FAILED, wipe=wipe, **NOT_KEPT)


async def the_last_attempt(stage: Stage, wipe: Wipe | None) -> Record:
    return await stage.ended(State.QUEUED, wipe=wipe, attempts=1, **NOT_KEPT)


async def cancelled_before_it_ran(stage: Stage, wipe: Wipe | None) -> Record:
    return await stage.ledger.cancel((await stage.queued(wipe=wipe, **NOT_KEPT)).id)


async def cancelled_while_it_ran(stage: Stage, wipe: Wipe | None) -> Record:
    record = await stage.running(wipe=wipe, attempts=5, **NOT_KEPT)
    await stage.ledger.cancel(record.id)
    await stage.ledger.settle([settlement(record, State.QUEUED)])
    return record


async def the_one_before_failed(stage: Stage, wipe: Wipe | None) -> Record:
    before = await stage.running()
    record = await stage.queued(wipe=wipe, after=after(before.id), **NOT_KEPT)
    await stage.ledger.settle([settlement(before, State.FAILED)])
    return record


async def the_one_before_had_failed(stage: Stage, wipe: Wipe | None) -> Record:
    before = await stage.ended(State.FAILED)
    return await stage.queued(wipe=wipe, after=after(before.id), **NOT_KEPT)


async def it_was_a_duplicate(stage: Stage, wipe: Wipe | None) -> Record:
    await stage.queued(key="one")
    return await stage.queued(wipe=wipe, key="one", **NOT_KEPT)


async def its_process_died(stage: Stage, wipe: Wipe | None) -> Record:
    (record,) = await stage.left_by_the_dead(call(wipe=wipe, **NOT_KEPT))
    await stage.ledger.rescue()
    return record


ENDS = [
    *(success, success_with_a_result, failure, the_last_attempt, cancelled_before_it_ran),
    *(cancelled_while_it_ran, the_one_before_failed, the_one_before_had_failed, it_was_a_duplicate),
    its_process_died,
]


@pytest.mark.parametrize("wipe", [None, *Wipe])
@pytest.mark.parametrize("end", ENDS)
async def test_whatever_ends_a_record_wipes_what_is_not_to_be_kept(
    stage: Stage, end: End, wipe: Wipe | None
) -> None:
    record = stage.now_is(await end(stage, wipe))
    assert record.state.terminal
    kept = dict.fromkeys(NOT_KEPT) if wipe else NOT_KEPT
    assert {name: getattr(record, name) for name in NOT_KEPT} == kept
    assert record.wiped == (wipe is not None)


async def test_what_goes_on_keeps_what_it_needs(stage: Stage) -> None:
    failed = await stage.ended(State.QUEUED, wipe=Wipe.SECRET, attempts=2, **NOT_KEPT)
    crashed = await stage.crashed(wipe=Wipe.SECRET, **NOT_KEPT)
    behind = await stage.queued(wipe=Wipe.SECRET, after=after(failed.id), **NOT_KEPT)
    for record in (failed, crashed, stage.now_is(behind)):
        assert not record.state.terminal
        assert (record.arguments, record.carried) == (NOT_KEPT["arguments"], NOT_KEPT["carried"])
