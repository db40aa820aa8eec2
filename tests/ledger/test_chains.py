"""A call that waits for another: let go on or cancelled in the very transaction that ends the one before."""

import asyncio
import json

import pytest

from segundo.errors import UnknownRecord
from segundo.record import Call, Record, State, waits_for
from tests.ledger.suite import Stage, after, call, settlement, states

ENDS = [State.SUCCEEDED, State.FAILED, State.CANCELLED]


async def record(stage: Stage, *calls: Call) -> list[Record]:
    return list(await stage.ledger.record(calls, owner=stage.me))


async def end(stage: Stage, running: Record, state: State = State.SUCCEEDED) -> None:
    assert await stage.ledger.settle([settlement(running, state)]) == [True]


@pytest.mark.parametrize("state", ENDS)
async def test_what_must_run_after_any_end_is_let_go_on(stage: Stage, state: State) -> None:
    before = await stage.running()
    (waiting,) = await record(stage, call(after=after(before.id, on_failure="run")))
    stage.clock.move(5)
    await end(stage, before, state)
    now = stage.now_is(waiting)
    assert (now.state, now.run_at) == (State.QUEUED, stage.clock.now)


@pytest.mark.parametrize("state", ENDS)
async def test_what_needs_success_is_let_go_on_by_it_and_cancelled_by_all_else(
    stage: Stage, state: State
) -> None:
    before = await stage.running()
    (waiting,) = await record(stage, call(after=after(before.id)))
    await end(stage, before, state)
    now = stage.now_is(waiting)
    if state is State.SUCCEEDED:
        assert now.state == State.QUEUED
    else:
        assert (now.state, now.reason) == (State.CANCELLED, "PredecessorFailed")


async def test_another_attempt_of_the_one_before_is_no_end(stage: Stage) -> None:
    before = await stage.running(attempts=2, crash_limit=1)
    (waiting,) = await record(stage, call(after=after(before.id)))
    await end(stage, before, State.QUEUED)
    assert stage.now_is(waiting) == waiting
    await end(stage, await stage.claim(before))
    assert stage.now_is(waiting).state == State.QUEUED


async def test_what_waits_and_is_not_due_yet_stays_so_when_it_is_let_go_on(stage: Stage) -> None:
    before = await stage.running()
    (waiting,) = await record(stage, call(after=after(before.id), delay=100.0))
    stage.clock.move(5)
    await end(stage, before)
    assert (stage.now_is(waiting).state, stage.now_is(waiting).run_at) == (State.QUEUED, waiting.run_at)


async def test_a_call_behind_another_waits_for_its_request_too(stage: Stage) -> None:
    before = await stage.running()
    first, second = await record(stage, *(call(after=after(before.id), held=True) for _ in range(2)))
    await stage.ledger.release(stage.me, [first.id])
    assert stage.now_is(first).state == State.WAITING
    await end(stage, before)
    assert (stage.now_is(first).state, stage.now_is(second).state) == (State.QUEUED, State.WAITING)
    await stage.ledger.release(stage.me, [second.id])
    assert stage.now_is(second).state == State.QUEUED


@pytest.mark.parametrize("on_failure", ["cancel", "run"])
@pytest.mark.parametrize("state", ENDS)
async def test_a_call_behind_one_that_has_ended_already_goes_the_same_way(
    stage: Stage, state: State, on_failure: str
) -> None:
    before = await stage.ended(state)
    link = after(before.id, on_failure=on_failure)
    free, held = await record(stage, call(after=link), call(after=link, held=True))
    assert [stage.now_is(one) for one in (free, held)] == [free, held]
    if on_failure == "cancel" and state is not State.SUCCEEDED:
        assert states([free, held]) == [State.CANCELLED, State.CANCELLED]
        assert (free.reason, free.owner, held.owner) == ("PredecessorFailed", None, None)
    else:
        assert states([free, held]) == [State.QUEUED, State.WAITING]


async def test_a_chain_runs_link_by_link(stage: Stage) -> None:
    first = call()
    second = call(after=after(first.id))
    third = call(after=after(second.id))
    await record(stage, first, second, third)
    order = []
    while claimed := await stage.ledger.claim(stage.me, limit=10):
        (one,) = claimed
        order.append(one.id)
        await end(stage, one)
    assert order == [first.id, second.id, third.id]


@pytest.mark.parametrize("held", [True, False])
async def test_a_failure_cancels_all_that_needs_it_link_by_link(stage: Stage, held: bool) -> None:
    before = await stage.running()
    second = call(after=after(before.id), held=held)
    third = call(after=after(second.id), held=held)
    come_what_may = call(after=after(second.id, on_failure="run"))
    beyond = call(after=after(come_what_may.id))
    await record(stage, second, third, come_what_may, beyond)
    await end(stage, before, State.FAILED)
    now = stage.records()
    ends = [(now[one.id].state, now[one.id].reason) for one in (second, third, come_what_may, beyond)]
    in_vain = (State.CANCELLED, "PredecessorFailed")
    assert ends == [in_vain, in_vain, (State.QUEUED, None), (State.WAITING, None)]
    await stage.ledger.release(stage.me, [second.id, third.id])
    assert [stage.records()[one.id].state for one in (second, third)] == ["cancelled", "cancelled"]


async def test_a_cancel_cancels_all_that_needs_what_was_cancelled(stage: Stage) -> None:
    first = call()
    second = call(after=after(first.id))
    third = call(after=after(second.id))
    await record(stage, first, second, third)
    await stage.ledger.cancel(first.id)
    now = stage.records()
    assert [now[one.id].reason for one in (first, second, third)] == [
        "Cancelled",
        "PredecessorFailed",
        "PredecessorFailed",
    ]


async def test_the_cancel_of_a_call_in_the_middle_leaves_the_one_before_it_alone(stage: Stage) -> None:
    before = await stage.running()
    second = call(after=after(before.id))
    third = call(after=after(second.id))
    await record(stage, second, third)
    await stage.ledger.cancel(second.id)
    now = stage.records()
    assert states([now[before.id], now[second.id], now[third.id]]) == ["running", "cancelled", "cancelled"]
    await end(stage, before)
    assert stage.records()[second.id].state == State.CANCELLED


async def test_a_call_behind_several_waits_for_all_of_them(stage: Stage) -> None:
    one, other = await stage.running(), await stage.running()
    (waiting,) = await record(stage, call(after=after(one.id, other.id)))
    await end(stage, one)
    assert stage.now_is(waiting) == waiting
    await end(stage, other)
    assert stage.now_is(waiting).state == State.QUEUED


async def test_a_call_behind_several_that_end_together_is_let_go_on_once(stage: Stage) -> None:
    several = [await stage.running() for _ in range(3)]
    (waiting,) = await record(stage, call(after=after(*(one.id for one in several))))
    assert await stage.ledger.settle([settlement(one) for one in several]) == [True] * 3
    assert stage.now_is(waiting).state == State.QUEUED


@pytest.mark.parametrize("failed_first", [True, False])
async def test_one_failure_of_several_is_enough_to_cancel(stage: Stage, failed_first: bool) -> None:
    one, other = await stage.running(), await stage.running()
    links = (*after(one.id), *after(other.id, on_failure="run"))
    (waiting,) = await record(stage, call(after=links))
    for running, state in [(one, State.FAILED), (other, State.SUCCEEDED)][:: 1 if failed_first else -1]:
        await end(stage, running, state)
    now = stage.now_is(waiting)
    assert (now.state, now.reason) == (State.CANCELLED, "PredecessorFailed")


async def test_many_behind_one_are_let_go_on_together(stage: Stage) -> None:
    before = await stage.running()
    waiting = await record(stage, *(call(after=after(before.id)) for _ in range(50)))
    await end(stage, before)
    assert {stage.now_is(one).state for one in waiting} == {State.QUEUED}


async def test_a_record_freed_by_a_settlement_can_be_claimed_with_the_same_breath(stage: Stage) -> None:
    before = await stage.running()
    (waiting,) = await record(stage, call(after=after(before.id)))
    settled = stage.ledger.settle([settlement(before)])
    claimed = stage.ledger.claim(stage.me, limit=1)
    assert await settled == [True]
    assert [one.id for one in await claimed] == [waiting.id]


async def test_behind_a_duplicate_of_the_request_is_behind_the_live_record(stage: Stage) -> None:
    live = await stage.running(key="k")
    duplicate = call(key="k", held=True)
    behind = call(after=after(duplicate.id), held=True)
    recorded = await record(stage, duplicate, behind)
    assert states(recorded) == [State.CANCELLED, State.WAITING]
    await stage.ledger.release(stage.me, [duplicate.id, behind.id])
    assert stage.records()[behind.id].state == State.WAITING
    await end(stage, live)
    assert stage.records()[behind.id].state == State.QUEUED


async def test_a_call_that_was_never_recorded_takes_what_needs_it_with_it(stage: Stage) -> None:
    """Its request was refused; what another request put behind it can never have what it needs."""
    refused = await stage.held()
    needs, does_not = await record(
        stage, call(after=after(refused.id)), call(after=after(refused.id, on_failure="run"))
    )
    await stage.forget(refused)
    now = stage.records()
    assert (now[needs.id].state, now[needs.id].reason) == (State.CANCELLED, "PredecessorFailed")
    assert now[does_not.id].state == State.QUEUED


async def test_a_request_refused_as_a_whole_leaves_no_link_behind(stage: Stage) -> None:
    before = await stage.running()
    waiting, further = call(after=after(before.id), held=True), call(held=True)
    records = await record(stage, waiting, further._replace(after=after(waiting.id)))
    await stage.forget(*records)
    assert stage.records().keys() == {before.id}
    again = call(id=waiting.id, held=True)
    await record(stage, again)
    await stage.ledger.release(stage.me, [again.id])
    assert stage.records()[again.id].state == State.QUEUED


async def test_what_was_cancelled_for_another_says_for_which(stage: Stage) -> None:
    first, failing, never = await stage.running(), await stage.running(), await stage.ended(State.FAILED)
    waiting, at_once = await record(
        stage, call(after=after(first.id, failing.id)), call(after=after(never.id))
    )
    await end(stage, failing, State.FAILED)
    for one, before in ((waiting, failing), (at_once, never)):
        error = json.loads(stage.now_is(one).error or "")
        assert (error["type"], error["before"]) == ("PredecessorFailed", before.id)
        assert before.id in error["message"]


# What waits says for whom


async def test_what_waits_says_for_whom_until_they_have_ended(stage: Stage) -> None:
    one, other = await stage.running(), await stage.running()
    waiting, behind, free = await record(
        stage, call(after=after(one.id, other.id)), call(after=after(one.id), held=True), call()
    )
    ids = [waiting.id, behind.id, free.id, "no-such-record"]
    assert await stage.ledger.waits_for(ids) == {
        waiting.id: sorted([one.id, other.id]),
        behind.id: [one.id],
    }
    assert waits_for(stage.now_is(behind), [one.id]) == ["request", one.id]
    await end(stage, one)
    assert await stage.ledger.waits_for(ids) == {waiting.id: [other.id]}
    assert waits_for(stage.now_is(behind), []) == ["request"]
    await end(stage, other)
    assert await stage.ledger.waits_for(ids) == {}


async def test_what_was_cancelled_waits_for_nobody(stage: Stage) -> None:
    one, other = await stage.running(), await stage.running()
    by_hand, for_one = await record(stage, *(call(after=after(one.id, other.id)) for _ in range(2)))
    await stage.ledger.cancel(by_hand.id)
    await end(stage, one, State.FAILED)
    assert await stage.ledger.waits_for([by_hand.id, for_one.id]) == {}
    assert waits_for(stage.now_is(for_one), [other.id]) == []


# Waiting never goes in a circle


async def test_a_call_cannot_wait_for_itself(stage: Stage) -> None:
    one = call()
    with pytest.raises(UnknownRecord, match="wait for itself"):
        await record(stage, call(), one._replace(after=after(one.id)))
    assert stage.records() == {}


async def test_a_call_cannot_wait_for_one_that_is_recorded_behind_it(stage: Stage) -> None:
    one, other = call(), call()
    with pytest.raises(UnknownRecord, match=other.id):
        await record(stage, one._replace(after=after(other.id)), other._replace(after=after(one.id)))
    assert stage.records() == {}


@pytest.mark.parametrize("held", [True, False])
async def test_a_call_that_is_recorded_again_waits_for_nothing_new(stage: Stage, held: bool) -> None:
    """Or a forged one could make two wait for each other, or one for itself, for ever."""
    first = call(held=held)
    second = call(after=after(first.id), held=held)
    await record(stage, first, second)
    again = first._replace(after=after(first.id, second.id))
    await record(stage, again)
    await stage.ledger.release(stage.me, [first.id, second.id])
    assert await stage.ledger.waits_for([first.id, second.id]) == {second.id: [first.id]}
    assert stage.records()[first.id].state == State.QUEUED


async def test_a_call_behind_no_record_is_refused_alone_and_leaves_nothing(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """The requests that are recorded with it do not hear of it, and none is done again because of it."""
    wrong = [call(), call(after=after("no-such-record"))]
    beside = [asyncio.ensure_future(stage.ledger.record([call()], owner=stage.me)) for _ in range(3)]
    refused = asyncio.ensure_future(stage.ledger.record(wrong, owner=stage.me))
    with pytest.raises(UnknownRecord, match="no-such-record"):
        await refused
    recorded = [one.id for each in beside for one in await each]
    assert stage.records().keys() == set(recorded)
    assert caplog.messages == []
