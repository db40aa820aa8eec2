"""Calls become records: all of a request or none, once however often they are sent, one for each live key."""

import asyncio

import pytest

from segundo.errors import LedgerUnavailable, UnknownRecord
from segundo.record import DEFAULT_PRIORITY, Call, State, new_id
from tests.ledger.suite import START, Stage, after, call, settlement


async def test_a_record_holds_all_that_the_call_says(stage: Stage) -> None:
    said = call(
        task="mails:send",
        arguments='{"to": "a@b"}',
        format=3,
        queue="mails",
        priority=7,
        delay=30.0,
        attempts=5,
        crash_limit=3,
        key="welcome",
        retry_of="earlier",
        retention=60.0,
        carried='{"tenant": "x"}',
        held=True,
    )
    (record,) = await stage.ledger.record([said], owner=stage.me)
    assert record == stage.now_is(record)
    told = {name: getattr(record, name) for name in Call._fields if name in record._fields}
    assert told == {name: getattr(said, name) for name in told} | {"run_at": START + 30.0}
    assert (record.state, record.owner, record.created_at) == (State.WAITING, stage.me, START)
    assert (record.started_at, record.finished_at, record.result, record.error) == (None,) * 4


async def test_a_call_that_says_little_is_due_at_once_with_the_usual_priority(stage: Stage) -> None:
    (record,) = await stage.ledger.record([call()], owner=stage.me)
    assert (record.run_at, record.priority, record.queue) == (START, DEFAULT_PRIORITY, "default")
    assert (record.state, record.owner) == (State.QUEUED, None)


async def test_a_moment_to_run_at_wins_over_a_delay(stage: Stage) -> None:
    record = await stage.queued(delay=10.0, run_at=START + 99.0)
    assert record.run_at == START + 99.0


async def test_records_are_answered_in_the_order_of_the_calls(stage: Stage) -> None:
    calls = [call(key=key) for key in ("a", None, "b", "a", None)]
    recorded = await stage.ledger.record(calls, owner=stage.me)
    assert [record.id for record in recorded] == [one.id for one in calls]


async def test_no_calls_are_no_records(stage: Stage) -> None:
    assert await stage.ledger.record([], owner=stage.me) == []
    assert stage.records() == {}


async def test_many_requests_at_once_get_their_own_records(stage: Stage) -> None:
    requests = [[call(key=None if n % 3 else f"key-{n}") for _ in range(n % 4)] for n in range(40)]
    answers = await asyncio.gather(*(stage.ledger.record(calls, owner=stage.me) for calls in requests))
    assert [[r.id for r in records] for records in answers] == [[c.id for c in calls] for calls in requests]
    assert stage.records().keys() == {one.id for calls in requests for one in calls}


async def test_a_request_that_names_an_unknown_record_leaves_no_record_and_spoils_no_other(
    stage: Stage,
) -> None:
    good, wrong = [call(), call(key="k")], [call(), call(after=after("nobody")), call(key="other")]
    answers = await asyncio.gather(
        stage.ledger.record(good, owner=stage.me),
        stage.ledger.record(wrong, owner=stage.me),
        stage.ledger.record([call()], owner=stage.me),
        return_exceptions=True,
    )
    assert isinstance(answers[1], UnknownRecord)
    assert "nobody" in str(answers[1])
    now = stage.records()
    assert len(now) == 3
    assert now.keys().isdisjoint(one.id for one in wrong)


async def test_a_call_cannot_wait_for_itself_or_for_one_that_comes_later(stage: Stage) -> None:
    id = new_id()
    with pytest.raises(UnknownRecord):
        await stage.ledger.record([call(id=id, after=after(id))], owner=stage.me)
    first, second = call(), call()
    with pytest.raises(UnknownRecord):
        await stage.ledger.record([first._replace(after=after(second.id)), second], owner=stage.me)
    assert stage.records() == {}


async def test_a_call_sent_twice_is_recorded_once_wherever_it_has_got_to(stage: Stage) -> None:
    one = call(key="k", held=True)
    (record,) = await stage.ledger.record([one], owner=stage.me)
    await stage.ledger.record([one], owner=stage.me)
    assert stage.records() == {one.id: record}
    await stage.ledger.release(stage.me, [one.id])
    running = await stage.claim(record)
    await stage.ledger.record([one], owner=stage.me)
    assert stage.records() == {one.id: running}


async def test_a_closed_ledger_records_nothing_and_says_so(stage: Stage) -> None:
    await stage.ledger.close()
    with pytest.raises(LedgerUnavailable, match="not open"):
        await stage.ledger.record([call()], owner=stage.me)
    assert stage.records() == {}


async def test_a_request_that_is_given_up_while_it_is_recorded_leaves_no_record(stage: Stage) -> None:
    calls = [call(held=True, key="k"), call(held=True)]
    request = asyncio.ensure_future(stage.ledger.record(calls, owner=stage.me))
    await asyncio.sleep(0)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    again = await stage.held(key="k")
    assert stage.records() == {again.id: again}


async def test_a_release_happens_though_its_caller_is_cancelled(stage: Stage) -> None:
    record = await stage.held()
    release = asyncio.ensure_future(stage.ledger.release(stage.me, [record.id]))
    release.cancel()
    await stage.settled()
    assert stage.now_is(record).state == State.QUEUED


async def test_a_release_needs_no_await(stage: Stage) -> None:
    record = await stage.held()
    stage.ledger.release(stage.me, [record.id])
    assert [claimed.id for claimed in await stage.ledger.claim(stage.me, limit=1)] == [record.id]


# Keys


async def test_a_call_whose_key_is_live_is_a_duplicate_and_names_the_live_one(stage: Stage) -> None:
    live = await stage.queued(key="k")
    (duplicate,) = await stage.ledger.record([call(key="k", held=True)], owner=stage.me)
    assert duplicate == stage.now_is(duplicate)
    assert (duplicate.state, duplicate.reason, duplicate.same_as) == (State.CANCELLED, "Duplicate", live.id)
    assert (duplicate.owner, duplicate.finished_at) == (None, START)


async def test_a_key_is_of_one_task(stage: Stage) -> None:
    await stage.queued(key="k", task="a:a")
    assert (await stage.queued(key="k", task="b:b")).state == State.QUEUED


@pytest.mark.parametrize("state", ["held", "queued", "running", "running again"])
async def test_a_key_is_taken_as_long_as_its_record_is_live(stage: Stage, state: str) -> None:
    live = await stage.held(key="k") if state == "held" else await stage.queued(key="k", attempts=2)
    if state.startswith("running"):
        await stage.claim(live)
    if state == "running again":
        await stage.ledger.settle([settlement(live, State.QUEUED, claim=1)])
        await stage.claim(live)
    assert (await stage.queued(key="k")).same_as == live.id


@pytest.mark.parametrize("end", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
async def test_a_key_is_free_once_its_record_has_ended(stage: Stage, end: State) -> None:
    await stage.ended(end, key="k")
    second = await stage.queued(key="k")
    assert (second.state, second.same_as) == (State.QUEUED, None)
    assert (await stage.queued(key="k")).same_as == second.id


async def test_of_the_duplicates_in_one_request_the_first_is_live(stage: Stage) -> None:
    calls = [call(key="k", held=True) for _ in range(3)]
    first, *others = await stage.ledger.record(calls, owner=stage.me)
    assert (first.state, [one.same_as for one in others]) == (State.WAITING, [first.id] * 2)


async def test_calls_with_one_key_that_come_at_once_have_one_live_record(stage: Stage) -> None:
    calls = [call(key="k") for _ in range(20)]
    answers = await asyncio.gather(*(stage.ledger.record([one], owner=stage.me) for one in calls))
    live = [record for (record,) in answers if record.state == State.QUEUED]
    assert len(live) == 1
    assert {record.same_as for (record,) in answers} == {None, live[0].id}


async def test_a_refused_call_that_another_request_was_told_is_the_same_runs_for_that_one(
    stage: Stage,
) -> None:
    refused = await stage.held(key="k")
    duplicate = await stage.queued(key="k")
    assert duplicate.same_as == refused.id
    await stage.forget(refused)
    assert [record.id for record in await stage.ledger.claim(stage.me, limit=5)] == [refused.id]
