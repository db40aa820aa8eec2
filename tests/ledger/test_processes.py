"""Processes that end by `kill -9`: what they left is taken over, and what they had been told is true."""

from collections.abc import Iterator

import pytest

from segundo.record import Call, Record, State
from tests.ledger.actors import Actor, Order, a_process
from tests.ledger.suite import Stage, call, settlement
from tests.support import wait_until


@pytest.fixture
def worker(stage: Stage) -> Iterator[Actor]:
    """A process with the owner "worker" on the ledger of the stage."""
    with a_process() as actor:
        actor.meet(stage.store, "worker")
        yield actor


async def claimed_by(worker: Actor, stage: Stage, *calls: Call) -> list[Record]:
    recorded = await stage.ledger.record(calls, owner=stage.me)
    ids = [record.id for record in recorded]
    claimed: list[Record] = worker.do("claim", "worker", ids=ids, limit=len(ids))
    assert {record.id for record in claimed} == set(ids)
    return claimed


async def test_what_a_killed_process_ran_and_held_is_taken_over(stage: Stage, worker: Actor) -> None:
    task, plain = call(crash_limit=3), call(crash_limit=0)
    await claimed_by(worker, stage, task, plain)
    (held,) = worker.do("record", [call(held=True)], owner="worker")
    assert await stage.ledger.rescue() == []
    worker.kill()
    stage.store.bury("worker")
    rescued = {record.id: record for record in await stage.ledger.rescue()}
    assert {id: (record.state, record.crashes) for id, record in rescued.items()} == {
        task.id: (State.QUEUED, 1),
        plain.id: (State.FAILED, 1),
        held.id: (State.QUEUED, 0),
    }
    assert await stage.ledger.rescue() == []


async def test_what_a_stopping_process_left_when_it_was_killed_counts_no_crash(
    stage: Stage, worker: Actor
) -> None:
    task, plain = call(crash_limit=1), call(crash_limit=0)
    await claimed_by(worker, stage, task, plain)
    worker.do("leave", "worker")
    assert await stage.ledger.rescue() == []  # it still runs them
    worker.kill()
    stage.store.bury("worker")
    rescued = {record.id: record for record in await stage.ledger.rescue()}
    assert (rescued[task.id].state, rescued[task.id].crashes) == (State.QUEUED, 0)
    assert (rescued[plain.id].state, rescued[plain.id].reason) == (State.FAILED, "WorkerLost")


async def test_what_an_orderly_stop_could_not_finish_is_taken_over_without_a_crash(
    stage: Stage, worker: Actor
) -> None:
    (record,) = await claimed_by(worker, stage, call(crash_limit=1))
    worker.do("leave", "worker")
    worker.do("close")
    assert await stage.ledger.rescue() == []  # a thread of it may still be at work
    worker.stop()
    stage.store.bury("worker")
    (rescued,) = await stage.ledger.rescue()
    assert (rescued.id, rescued.state, rescued.crashes) == (record.id, State.QUEUED, 0)


async def test_a_living_process_keeps_what_it_has_while_another_is_killed(
    stage: Stage, worker: Actor
) -> None:
    (lost,) = await claimed_by(worker, stage, call(crash_limit=3))
    with a_process() as neighbour:
        neighbour.meet(stage.store, "neighbour")
        (held,) = neighbour.do("record", [call(held=True)], owner="neighbour")
        (running,) = neighbour.do("claim", "neighbour", ids=[(await stage.queued(crash_limit=3)).id], limit=1)
        worker.kill()
        stage.store.bury("worker")
        assert [record.id for record in neighbour.do("rescue")] == [lost.id]
        assert await stage.ledger.rescue() == []
        assert [stage.now_is(record) for record in (held, running)] == [held, running]
        assert neighbour.do("settle", [settlement(running)]) == [True]


async def test_a_request_cut_short_by_a_kill_is_there_as_a_whole_or_not_at_all(
    stage: Stage, worker: Actor
) -> None:
    requests = [[call(held=True), call(held=True, key=f"key-{n}"), call(held=True)] for n in range(3000)]
    worker.begin([Order("record", (calls,), {"owner": "worker"}) for calls in requests])
    wait_until(lambda: len(stage.records()) > 100)
    worker.kill()
    await stage.settled()  # the file can still be written
    recorded = stage.records()
    whole = [calls for calls in requests if all(one.id in recorded for one in calls)]
    assert 3 * len(whole) == len(recorded) < 3 * len(requests)
    assert whole == requests[: len(whole)]
    stage.store.bury("worker")
    await stage.ledger.rescue()
    assert {record.state for record in stage.records().values()} == {State.QUEUED}
