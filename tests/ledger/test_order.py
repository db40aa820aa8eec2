"""Which records a claim takes, and in which order; when the next is due."""

import random

import pytest

from segundo.record import PRIORITIES, Record, State
from tests.ledger.suite import START, Stage, after, call

ME = Stage.me


async def claims(stage: Stage, **how: object) -> list[str]:
    """The ids of all that can be claimed, one at a time."""
    ids: list[str] = []
    while claimed := await stage.ledger.claim(ME, limit=1, **how):  # type: ignore[arg-type]
        ids += [record.id for record in claimed]
    return ids


def ids(records: list[Record]) -> list[str]:
    return [record.id for record in records]


async def test_the_most_urgent_come_first_then_the_longest_due_then_the_first_recorded(stage: Stage) -> None:
    wishes = [
        (priority, START - due, f"id-{number}")
        for priority in PRIORITIES
        for due in (0.0, 5.0)
        for number in (1, 2)
    ]
    expected = [
        id
        for _, _, id in sorted(
            (-priority, run_at, f"{id}-{priority}-{run_at}") for priority, run_at, id in wishes
        )
    ]
    calls = [
        call(id=f"{id}-{priority}-{run_at}", priority=priority, run_at=run_at)
        for priority, run_at, id in wishes
    ]
    random.Random(1).shuffle(calls)
    await stage.ledger.record(calls, owner=ME)
    assert await claims(stage) == expected


async def test_a_claim_of_many_is_in_the_same_order(stage: Stage) -> None:
    calls = [call(id=f"id-{n}", priority=n % 3, run_at=START - n % 7) for n in range(30)]
    await stage.ledger.record(calls, owner=ME)
    claimed = list(await stage.ledger.claim(ME, limit=100))
    assert claimed == sorted(claimed, key=lambda record: (-record.priority, record.run_at, record.id))
    assert len(claimed) == 30


async def test_a_claim_takes_no_more_than_its_limit_and_those_are_the_first(stage: Stage) -> None:
    calls = [call(id=f"id-{n}", priority=9 - n) for n in range(5)]
    await stage.ledger.record(calls, owner=ME)
    assert ids(list(await stage.ledger.claim(ME, limit=2))) == ["id-0", "id-1"]
    assert ids(list(await stage.ledger.claim(ME, limit=2))) == ["id-2", "id-3"]
    assert ids(list(await stage.ledger.claim(ME, limit=2))) == ["id-4"]
    assert await stage.ledger.claim(ME, limit=2) == []


async def test_what_was_released_first_runs_first(stage: Stage) -> None:
    first, second = await stage.held(id="z-first"), await stage.held(id="a-second")
    for record in (first, second):
        stage.clock.move(1)
        await stage.ledger.release(ME, [record.id])
    assert await claims(stage) == [first.id, second.id]


async def test_an_urgent_record_that_is_not_due_holds_up_none_that_is(stage: Stage) -> None:
    later = await stage.queued(priority=9, delay=10)
    due = await stage.queued(priority=0)
    assert await claims(stage) == [due.id]
    stage.clock.move(10)
    assert await claims(stage) == [later.id]


async def test_a_record_can_be_claimed_from_the_moment_it_is_due(stage: Stage) -> None:
    record = await stage.queued(delay=10)
    stage.clock.move(9.999)
    assert await claims(stage) == []
    stage.clock.move(0.001)
    assert await claims(stage) == [record.id]


async def test_a_claim_takes_from_the_queues_it_names_and_from_no_other(stage: Stage) -> None:
    mails = [await stage.queued(id=f"mail-{n}", queue="mails") for n in range(2)]
    images = [await stage.queued(id=f"image-{n}", queue="images") for n in range(2)]
    other = await stage.queued(queue="other")
    assert await claims(stage, queues=["nothing here"]) == []
    assert await claims(stage, queues=[]) == []
    assert await claims(stage, queues=["mails"]) == ids(mails)
    assert sorted(await claims(stage, queues=["other", "images"])) == sorted([*ids(images), other.id])


async def test_a_claim_that_names_no_queue_takes_from_all(stage: Stage) -> None:
    records = [await stage.queued(queue=queue) for queue in ("a", "b", "Ä", "", "a b'c")]
    assert sorted(await claims(stage)) == sorted(ids(records))


async def test_a_queue_that_is_always_full_does_not_starve_another(stage: Stage) -> None:
    await stage.ledger.record([call(queue="full") for _ in range(200)], owner=ME)
    await stage.ledger.record([call(queue="small")], owner=ME)
    queues: set[str] = set()
    for _ in range(50):
        stage.clock.move(0.0137)
        (claimed,) = await stage.ledger.claim(ME, limit=1)
        queues.add(claimed.queue)
    assert queues == {"full", "small"}


async def test_a_claim_by_id_takes_those_and_no_other(stage: Stage) -> None:
    first, second, third = [await stage.queued(id=id) for id in ("a", "b", "c")]
    claimed = await stage.ledger.claim(ME, ids=[third.id, "nobody", first.id], limit=10)
    assert ids(list(claimed)) == [first.id, third.id]
    assert await stage.ledger.claim(ME, ids=[], limit=10) == []
    assert await claims(stage) == [second.id]


async def test_a_claim_by_id_keeps_its_limit_and_takes_the_most_urgent(stage: Stage) -> None:
    records = [await stage.queued(priority=priority) for priority in (3, 9, 5)]
    claimed = await stage.ledger.claim(ME, ids=ids(records), limit=2)
    assert [record.priority for record in claimed] == [9, 5]


async def test_a_claim_by_id_passes_over_what_is_not_due(stage: Stage) -> None:
    later, due = await stage.queued(delay=5, priority=9), await stage.queued()
    assert ids(list(await stage.ledger.claim(ME, ids=[later.id, due.id], limit=1))) == [due.id]


async def test_a_claim_by_id_keeps_to_the_queues_it_names(stage: Stage) -> None:
    mail, image = await stage.queued(queue="mails"), await stage.queued(queue="images")
    claimed = await stage.ledger.claim(ME, ids=[mail.id, image.id], queues=["images"], limit=10)
    assert ids(list(claimed)) == [image.id]


async def test_what_a_claim_returns_is_what_is_stored(stage: Stage) -> None:
    await stage.queued(key="k", retention=5.0, carried="{}")
    stage.clock.move(7)
    (claimed,) = await stage.ledger.claim(ME, limit=1)
    assert claimed == stage.now_is(claimed)
    assert (claimed.owner, claimed.claim, claimed.started_at) == (ME, 1, stage.clock.now)


# Started in the step that releases them


async def test_what_is_started_is_claimed_without_ever_being_queued(stage: Stage) -> None:
    held = [await stage.held(id=id) for id in ("a", "b", "c")]
    stage.clock.move(5)
    started = list(await stage.ledger.start(ME, held, limit=10))
    assert started == [stage.now_is(record) for record in held]
    assert {(r.state, r.owner, r.claim, r.started_at) for r in started} == {
        (State.RUNNING, ME, 1, stage.clock.now)
    }


async def test_what_is_beyond_the_limit_of_a_start_is_released(stage: Stage) -> None:
    held = [await stage.held(id=id) for id in ("a", "b", "c")]
    started = await stage.ledger.start(ME, held, limit=1)
    assert ids(list(started)) == ["a"]
    assert [stage.now_is(record).state for record in held] == ["running", "queued", "queued"]


async def test_what_waits_for_another_or_is_not_due_is_released_and_not_started(stage: Stage) -> None:
    first, second = call(held=True), call(held=True, delay=10)
    third = call(held=True, after=after(first.id))
    held = await stage.ledger.record([first, second, third], owner=ME)
    started = await stage.ledger.start(ME, held, limit=10)
    assert ids(list(started)) == [first.id]
    assert [stage.now_is(record).state for record in held] == ["running", "queued", "waiting"]
    assert {stage.now_is(record).owner for record in held[1:]} == {None}


async def test_only_its_owner_starts_a_record_and_only_once(stage: Stage) -> None:
    await stage.another("other")
    record = await stage.held()
    assert await stage.ledger.start("other", [record], limit=1) == []
    assert stage.now_is(record) == record
    assert len(await stage.ledger.start(ME, [record], limit=1)) == 1
    assert await stage.ledger.start(ME, [record], limit=1) == []
    assert stage.now_is(record).claim == 1


async def test_a_start_needs_no_await(stage: Stage) -> None:
    record = await stage.held()
    started = stage.ledger.start(ME, [record], limit=1)
    assert await stage.ledger.claim(ME, limit=1) == []
    assert ids(list(await started)) == [record.id]


# When the next is due


async def test_nothing_queued_is_never_due(stage: Stage) -> None:
    await stage.held()
    await stage.running()
    await stage.ended()
    assert await stage.ledger.next_due() is None
    assert await stage.ledger.next_due(["default"]) is None


async def test_the_next_is_due_in_as_many_seconds_as_the_first_still_has_to_wait(stage: Stage) -> None:
    await stage.queued(delay=30, priority=9)
    await stage.queued(delay=20, priority=0)
    await stage.queued(delay=10, queue="mails")
    assert await stage.ledger.next_due() == 10
    assert await stage.ledger.next_due(["default"]) == 20
    assert await stage.ledger.next_due(["images", "mails"]) == 10
    assert await stage.ledger.next_due(["images"]) is None
    assert await stage.ledger.next_due([]) is None
    stage.clock.move(15)
    assert await stage.ledger.next_due() == 0
    assert await stage.ledger.next_due(["default"]) == 5


async def test_a_record_that_crashed_a_process_is_due_like_any_other(stage: Stage) -> None:
    record = await stage.crashed()
    assert await stage.ledger.next_due() == 0
    await stage.claim(record)
    assert await stage.ledger.next_due() is None


@pytest.mark.parametrize("priority", PRIORITIES)
async def test_the_next_is_found_at_every_priority(stage: Stage, priority: int) -> None:
    await stage.queued(priority=priority, delay=3)
    assert await stage.ledger.next_due() == 3
