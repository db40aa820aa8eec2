"""The calls that an attempt adds: recorded in the very transaction that stores its success, or never."""

import json
from typing import Any

import pytest

from segundo.ledger.settling import CHILD_REFUSED
from segundo.record import Call, Record, State
from tests.ledger.suite import Stage, after, call, settlement, states

NOT_SUCCEEDED = [State.FAILED, State.CANCELLED, State.QUEUED]


async def succeed(stage: Stage, parent: Record, *children: Call) -> None:
    assert await stage.ledger.settle([settlement(parent, children=children)]) == [True]


def of(stage: Stage, *calls: Call) -> list[Record]:
    records = stage.records()
    return [records[one.id] for one in calls]


async def test_the_child_calls_of_a_success_are_recorded_with_it_and_can_be_claimed(stage: Stage) -> None:
    parent = await stage.running()
    now, later = call(), call(delay=10.0)
    await succeed(stage, parent, now, later)
    assert states([stage.now_is(parent), *of(stage, now, later)]) == ["succeeded", "queued", "queued"]
    assert [record.run_at - stage.clock.now for record in of(stage, now, later)] == [0, 10]
    (claimed,) = await stage.ledger.claim(stage.me, limit=10)
    assert claimed.id == now.id


@pytest.mark.parametrize("state", NOT_SUCCEEDED)
async def test_an_attempt_that_does_not_succeed_drops_its_child_calls(stage: Stage, state: State) -> None:
    parent = await stage.running(attempts=2)
    ended = settlement(parent, state, children=(call(),))
    assert await stage.ledger.settle([ended]) == [True]
    assert stage.records().keys() == {parent.id}


async def test_who_lost_its_claim_records_no_child_calls(stage: Stage) -> None:
    parent = await stage.running()
    assert await stage.ledger.settle([settlement(parent, claim=parent.claim - 1, children=(call(),))]) == [
        False
    ]
    assert stage.records() == {parent.id: parent}


async def test_a_settlement_told_twice_records_its_child_calls_once(stage: Stage) -> None:
    parent = await stage.running()
    child = call()
    await succeed(stage, parent, child)
    claimed = await stage.claim(*of(stage, child))
    assert await stage.ledger.settle([settlement(parent, children=(child, call()))]) == [False]
    assert stage.records().keys() == {parent.id, child.id}
    assert stage.now_is(claimed) == claimed


async def test_child_calls_that_a_request_would_hold_are_held_by_nobody(stage: Stage) -> None:
    parent, child = await stage.running(), call(held=True)
    await succeed(stage, parent, child)
    assert [(one.state, one.owner) for one in of(stage, child)] == [(State.QUEUED, None)]


async def test_a_child_call_whose_key_is_live_is_a_duplicate_and_its_parents_key_is_free(
    stage: Stage,
) -> None:
    live = await stage.queued(key="live")
    parent = await stage.running(key="mine")
    next_one, same, behind_it = call(key="mine"), call(key="live"), call()
    behind_it = behind_it._replace(after=after(same.id))
    await succeed(stage, parent, next_one, same, behind_it)
    first, second, third = of(stage, next_one, same, behind_it)
    assert (first.state, second.reason, second.same_as) == (State.QUEUED, "Duplicate", live.id)
    assert await stage.ledger.waits_for([third.id]) == {third.id: [live.id]}


async def test_child_calls_wait_for_one_another_for_older_records_and_not_for_their_parent(
    stage: Stage,
) -> None:
    older, parent = await stage.running(), await stage.running()
    first = call(after=after(parent.id))
    second = call(after=after(first.id, older.id))
    await succeed(stage, parent, first, second)
    assert states(of(stage, first, second)) == ["queued", "waiting"]
    await stage.ledger.settle([settlement(await stage.claim(*of(stage, first)))])
    assert states(of(stage, second)) == ["waiting"]
    await stage.ledger.settle([settlement(older)])
    assert states(of(stage, second)) == ["queued"]


async def test_a_child_call_behind_what_ends_in_the_same_breath_does_not_wait_for_ever(stage: Stage) -> None:
    one, parent, other = [await stage.running() for _ in range(3)]
    child = call(after=after(one.id, other.id))
    together = [settlement(one), settlement(parent, children=(child,)), settlement(other)]
    assert await stage.ledger.settle(together) == [True, True, True]
    assert states(of(stage, child)) == ["queued"]


WRONG: dict[str, dict[str, Any]] = {
    "behind no record": {"after": after("no-such-record")},
    "with half a character in its key": {"key": "\udc80"},
    "with a key that is no text": {"key": object()},
    "due after the end of time": {"run_at": 10**400},
    "without a task": {"task": None},
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_wrong_child_call_fails_its_parent_and_nothing_else(stage: Stage, wrong: str) -> None:
    before, parent, beside = [await stage.running() for _ in range(3)]
    (needs_it,) = await stage.ledger.record([call(after=after(parent.id))], owner=stage.me)
    settlements = [
        settlement(before, children=(first := call(),)),
        settlement(parent, result='"done"', children=(call(), call(**WRONG[wrong]), call())),
        settlement(beside),
    ]
    assert await stage.ledger.settle(settlements) == [True, True, True]
    now = stage.records()
    assert states([now[before.id], now[beside.id], now[first.id]]) == ["succeeded", "succeeded", "queued"]
    failed = now[parent.id]
    assert (failed.state, failed.reason, failed.result) == (State.FAILED, CHILD_REFUSED, None)
    assert "its child calls cannot be recorded" in json.loads(failed.error or "")["message"]
    assert now[needs_it.id].reason == "PredecessorFailed"
    assert len(now) == 5


async def test_a_duplicate_child_call_behind_no_record_is_wrong_too(stage: Stage) -> None:
    await stage.queued(key="live")
    parent = await stage.running()
    await succeed(stage, parent, call(key="live", after=after("no-such-record")))
    assert (stage.now_is(parent).reason, len(stage.records())) == (CHILD_REFUSED, 2)


async def test_two_child_calls_that_wait_for_each_other_are_refused(stage: Stage) -> None:
    parent = await stage.running()
    one, other = call(), call()
    one, other = one._replace(after=after(other.id)), other._replace(after=after(one.id))
    await succeed(stage, parent, one, other)
    assert (stage.now_is(parent).reason, len(stage.records())) == (CHILD_REFUSED, 1)
