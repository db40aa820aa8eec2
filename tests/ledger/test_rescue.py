"""What a dead process leaves is taken over once, its crash counted; nothing is taken from the living."""

import asyncio
import json

import pytest

from segundo.record import Record, State
from tests.ledger.suite import Stage, after, call, settlement


async def crash(stage: Stage, record: Record, *, stopping: bool = False) -> Record:
    """Claimed by a process that dies, and rescued."""
    owner = f"ghost-{record.claim}"
    ghost = await stage.another(owner)
    await ghost.claim(owner, ids=[record.id], limit=1)
    if stopping:
        await ghost.leave(owner)
    await stage.let_die(ghost)
    assert [rescued.id for rescued in await stage.ledger.rescue()] == [record.id]
    return stage.now_is(record)


@pytest.mark.parametrize("crash_limit", [1, 2, 3])
async def test_a_crash_budget_allows_as_many_crashes_and_the_next_one_fails(
    stage: Stage, crash_limit: int
) -> None:
    record = await stage.queued(crash_limit=crash_limit)
    for crashes in range(1, crash_limit + 1):
        record = await crash(stage, record)
        assert (record.state, record.crashes, record.reason) == (State.QUEUED, crashes, None)
    record = await crash(stage, record)
    assert (record.state, record.reason, record.crashes) == (State.FAILED, "WorkerLost", crash_limit + 1)


async def test_a_plain_call_whose_process_dies_is_not_started_again(stage: Stage) -> None:
    record = await crash(stage, await stage.queued(crash_limit=0))
    assert (record.state, record.reason, record.crashes) == (State.FAILED, "WorkerLost", 1)
    assert (record.finished_at, record.failures) == (stage.clock.now, 0)
    error = json.loads(record.error or "")
    assert error["type"] == "WorkerLost"
    assert "ended before the attempt did" in error["message"]


async def test_what_a_stopping_process_could_not_end_counts_no_crash(stage: Stage) -> None:
    record = await stage.queued(crash_limit=1)
    for _ in range(3):
        record = await crash(stage, record, stopping=True)
        assert (record.state, record.crashes) == (State.QUEUED, 0)


async def test_a_stopping_process_does_not_spend_the_last_of_a_crash_budget(stage: Stage) -> None:
    record = await crash(stage, await stage.queued(crash_limit=1))
    record = await crash(stage, record, stopping=True)
    assert (record.state, record.crashes) == (State.QUEUED, 1)
    assert (await crash(stage, record)).state == State.FAILED


async def test_a_plain_call_of_a_stopping_process_has_failed_and_says_at_shutdown(stage: Stage) -> None:
    record = await crash(stage, await stage.queued(crash_limit=0), stopping=True)
    assert (record.state, record.reason, record.crashes) == (State.FAILED, "WorkerLost", 0)
    assert "at shutdown" in json.loads(record.error or "")["message"]


async def test_crashes_spend_no_failures_and_failures_no_crashes(stage: Stage) -> None:
    record = await crash(stage, await stage.queued(crash_limit=2, attempts=2))
    record = await stage.claim(record)
    await stage.ledger.settle([settlement(record, State.QUEUED, reason="ValueError", error='"why"')])
    record = await crash(stage, stage.now_is(record))
    assert (record.state, record.failures, record.crashes) == (State.QUEUED, 1, 2)
    assert (record.reason, record.error) == ("ValueError", '"why"')


async def test_what_waited_for_the_request_of_a_dead_process_runs(stage: Stage) -> None:
    (record,) = await stage.left_by_the_dead(call(), run=False)
    assert await stage.ledger.claim(stage.me, limit=1) == []
    (rescued,) = await stage.ledger.rescue()
    assert (rescued.state, rescued.owner) == (State.QUEUED, None)
    assert stage.now_is(record) == rescued
    assert [claimed.id for claimed in await stage.ledger.claim(stage.me, limit=1)] == [record.id]


async def test_what_waited_for_the_request_of_a_dead_process_still_waits_for_the_call_before_it(
    stage: Stage,
) -> None:
    before = await stage.running()
    (record,) = await stage.left_by_the_dead(call(after=after(before.id)), run=False)
    (rescued,) = await stage.ledger.rescue()
    assert (rescued.id, rescued.state, rescued.owner) == (record.id, State.WAITING, None)
    await stage.ledger.settle([settlement(before)])
    assert stage.now_is(record).state == State.QUEUED


async def test_a_chain_that_died_with_its_process_goes_on_where_it_was(stage: Stage) -> None:
    first = call(crash_limit=0)
    second = call(after=after(first.id, on_failure="run"))
    third = call(after=after(second.id))
    owner = "ghost"
    ghost = await stage.another(owner)
    await ghost.record([one._replace(held=True) for one in (first, second, third)], owner=owner)
    await ghost.release(owner, [first.id])
    await ghost.claim(owner, limit=1)
    await stage.let_die(ghost)
    await stage.ledger.rescue()
    now = stage.records()
    assert [now[one.id].state for one in (first, second, third)] == ["failed", "queued", "waiting"]


async def test_a_rescue_is_asked_for_again_and_again_and_takes_once(stage: Stage) -> None:
    (record,) = await stage.left_by_the_dead(call(crash_limit=3))
    assert [rescued.id for rescued in await stage.ledger.rescue()] == [record.id]
    assert await stage.ledger.rescue() == []
    assert stage.now_is(record).crashes == 1


async def test_several_dead_processes_are_taken_over_at_once(stage: Stage) -> None:
    left = [
        *await stage.left_by_the_dead(call(crash_limit=1), call(crash_limit=1)),
        *await stage.left_by_the_dead(call(), run=False),
        *await stage.left_by_the_dead(call(crash_limit=0)),
    ]
    rescued = {record.id: record for record in await stage.ledger.rescue()}
    assert rescued == {record.id: stage.now_is(record) for record in left}
    assert [rescued[record.id].state for record in left] == ["queued", "queued", "queued", "failed"]


@pytest.mark.parametrize("seconds", [0.0, 60.0, 1e6])
async def test_nothing_is_taken_from_the_living_however_long_they_take(stage: Stage, seconds: float) -> None:
    other = await stage.another("other")
    (held,) = await other.record([call(held=True)], owner="other")
    running = await stage.claim(await stage.queued(), "other")
    ours = [await stage.held(), await stage.running()]
    stage.clock.move(seconds)
    assert await stage.ledger.rescue() == await other.rescue() == []
    assert [stage.now_is(record) for record in (held, running, *ours)] == [held, running, *ours]


async def test_a_second_owner_of_this_process_that_lives_loses_nothing_with_the_first(stage: Stage) -> None:
    ledger = await stage.another("first", "second")
    first = await stage.claim(await stage.queued(crash_limit=1), "first")
    second = await stage.claim(await stage.queued(crash_limit=1), "second")
    await ledger.leave("first")
    await stage.ledger.rescue()
    assert [stage.now_is(record) for record in (first, second)] == [first, second]
    await stage.let_die(ledger)
    assert len(await stage.ledger.rescue()) == 2
    assert [stage.now_is(record).crashes for record in (first, second)] == [0, 1]


async def test_who_joins_twice_is_one(stage: Stage) -> None:
    await stage.ledger.join(stage.me)
    record = await stage.running(crash_limit=1)
    assert await stage.ledger.rescue() == []
    await stage.ledger.settle([settlement(record)])
    await stage.ledger.leave(stage.me)
    await stage.ledger.leave(stage.me)


async def test_what_comes_into_the_hands_of_who_leaves_is_taken_over(stage: Stage) -> None:
    """Its process may still be at work, or die at any moment."""
    leaver = await stage.another("leaver")
    records = [await stage.queued(crash_limit=1) for _ in range(3)]
    await asyncio.gather(
        leaver.claim("leaver", limit=1), leaver.leave("leaver"), leaver.claim("leaver", limit=1)
    )
    await leaver.claim("leaver", limit=1)
    (held,) = await leaver.record([call(held=True)], owner="leaver")
    assert await stage.ledger.rescue() == []
    await stage.let_die(leaver)
    assert len(await stage.ledger.rescue()) == 4
    now = [stage.now_is(record) for record in (*records, held)]
    assert [(record.state, record.crashes) for record in now] == [(State.QUEUED, 0)] * 4


# Records that took a process down before


async def test_of_those_that_crashed_a_process_one_is_claimed_at_a_time(stage: Stage) -> None:
    suspects = [await stage.crashed() for _ in range(3)]
    harmless = [await stage.queued() for _ in range(2)]
    claimed = await stage.ledger.claim(stage.me, limit=10)
    assert [record.crashes for record in claimed if record.crashes] == [1]
    assert {record.id for record in claimed if not record.crashes} == {record.id for record in harmless}
    await stage.ledger.settle([settlement(record) for record in claimed])
    assert len(await stage.ledger.claim(stage.me, limit=10)) == 1
    assert len([record for record in suspects if stage.now_is(record).state == State.QUEUED]) == 1


async def test_who_runs_a_suspect_already_can_claim_none(stage: Stage) -> None:
    suspect = await stage.crashed()
    assert await stage.ledger.claim(stage.me, limit=10, suspect=False) == []
    assert await stage.ledger.claim(stage.me, limit=10, ids=[suspect.id], suspect=False) == []
    assert [r.id for r in await stage.ledger.claim(stage.me, limit=10)] == [suspect.id]


async def test_of_suspects_asked_for_by_id_one_is_claimed(stage: Stage) -> None:
    suspects = [await stage.crashed(priority=priority) for priority in (3, 7, 5)]
    harmless = await stage.queued()
    ids = [record.id for record in (*suspects, harmless)]
    claimed = await stage.ledger.claim(stage.me, ids=ids, limit=10)
    assert [record.id for record in claimed] == [suspects[1].id, harmless.id]


async def test_a_suspect_takes_one_of_the_slots_asked_for(stage: Stage) -> None:
    await stage.crashed()
    for _ in range(3):
        await stage.queued()
    assert len(await stage.ledger.claim(stage.me, limit=2)) == 2


async def test_a_suspect_is_the_more_urgent_the_higher_its_priority(stage: Stage) -> None:
    low, high = await stage.crashed(priority=1), await stage.crashed(priority=8)
    (first,) = await stage.ledger.claim(stage.me, limit=10)
    (second,) = await stage.ledger.claim(stage.me, limit=10)
    assert [first.id, second.id] == [high.id, low.id]
