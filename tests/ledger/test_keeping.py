"""Records are read, newest first, and kept for as long as they were promised to be."""

import pytest

from segundo.record import State
from tests.ledger.suite import Stage, after, call, settlement

DAY = 86400.0


async def recorded(stage: Stage, number: int) -> list[str]:
    """The ids of so many records, newest first."""
    await stage.ledger.record([call(id=f"id-{n:03}") for n in range(number)], owner=stage.me)
    return [f"id-{n:03}" for n in reversed(range(number))]


async def selected(stage: Stage, **how: object) -> list[str]:
    return [record.id for record in await stage.ledger.select(**how)]  # type: ignore[arg-type]


async def test_what_is_selected_is_what_is_stored(stage: Stage) -> None:
    await stage.queued(key="k", retention=5.0, attempts=None)
    await stage.ledger.cancel((await stage.running()).id)
    await stage.ended(State.FAILED)
    assert {record.id: record for record in await stage.ledger.select()} == stage.records()


async def test_records_are_selected_newest_first_up_to_a_limit(stage: Stage) -> None:
    newest_first = await recorded(stage, 7)
    assert await selected(stage) == newest_first
    assert await selected(stage, limit=3) == newest_first[:3]
    assert await selected(stage, limit=0) == []


async def test_pages_follow_one_another_without_gap_or_repetition(stage: Stage) -> None:
    newest_first = await recorded(stage, 11)
    pages, before = [], None
    while page := await selected(stage, limit=4, before=before):
        pages.append(page)
        before = page[-1]
    assert [len(page) for page in pages] == [4, 4, 3]
    assert [id for page in pages for id in page] == newest_first


async def test_records_that_come_meanwhile_do_not_shift_the_pages(stage: Stage) -> None:
    newest_first = await recorded(stage, 4)
    first = await selected(stage, limit=2)
    await stage.queued(id="id-999")
    assert first + await selected(stage, limit=2, before=first[-1]) == newest_first


async def test_a_state_is_selected_by_itself_and_in_pages(stage: Stage) -> None:
    newest_first = await recorded(stage, 6)
    for id in newest_first[::2]:
        await stage.ledger.cancel(id)
    assert await selected(stage, state=State.CANCELLED) == newest_first[::2]
    assert await selected(stage, state=State.QUEUED) == newest_first[1::2]
    assert await selected(stage, state=State.CANCELLED, limit=1, before=newest_first[0]) == newest_first[2:3]
    assert await selected(stage, state=State.FAILED) == []


async def test_records_are_selected_by_id_and_unknown_ones_are_left_out(stage: Stage) -> None:
    await recorded(stage, 3)
    assert await selected(stage, ids=["id-000", "nobody", "id-002"]) == ["id-002", "id-000"]
    assert await selected(stage, ids=[]) == []


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
async def test_a_record_is_pruned_when_its_retention_is_over_and_not_before(
    stage: Stage, state: State
) -> None:
    kept, pruned = await stage.ended(state, retention=2 * DAY), await stage.ended(state, retention=DAY)
    stage.clock.move(DAY - 0.001)
    assert await stage.ledger.prune() == 0
    stage.clock.move(0.001)
    assert await stage.ledger.prune() == 1
    assert stage.records().keys() == {kept.id}
    assert pruned.id not in stage.records()


async def test_retention_counts_from_the_end_of_a_record_not_from_its_beginning(stage: Stage) -> None:
    record = await stage.running(retention=DAY)
    stage.clock.move(2 * DAY)
    await stage.ledger.settle([settlement(record)])
    assert await stage.ledger.prune() == 0
    stage.clock.move(DAY)
    assert await stage.ledger.prune() == 1


async def test_a_record_without_retention_is_kept_for_ever(stage: Stage) -> None:
    record = await stage.ended(retention=None)
    stage.clock.move(10_000 * DAY)
    assert await stage.ledger.prune() == 0
    assert stage.now_is(record) == record


async def test_a_live_record_is_never_pruned(stage: Stage) -> None:
    live = [
        await stage.held(retention=0.0),
        await stage.queued(retention=0.0),
        await stage.running(retention=0.0),
        await stage.queued(retention=0.0, after=after((await stage.queued(delay=9 * DAY)).id)),
    ]
    stage.clock.move(DAY)
    assert await stage.ledger.prune() == await stage.ledger.prune(older_than=0) == 0
    assert [stage.now_is(record) for record in live] == live


async def test_a_duplicate_is_pruned_like_any_other_ended_record(stage: Stage) -> None:
    live = await stage.queued(key="k", retention=DAY)
    await stage.queued(key="k", retention=DAY)
    stage.clock.move(DAY)
    assert await stage.ledger.prune() == 1
    assert stage.records() == {live.id: live}


async def test_pruning_by_hand_takes_what_ended_so_long_ago_whatever_its_retention(stage: Stage) -> None:
    old = [await stage.ended(retention=retention) for retention in (None, 9 * DAY)]
    stage.clock.move(DAY)
    young = await stage.ended(retention=None)
    assert await stage.ledger.prune(older_than=DAY + 1) == 0
    assert await stage.ledger.prune(older_than=DAY) == len(old)
    assert stage.records() == {young.id: young}


async def test_a_prune_takes_no_more_than_its_limit_and_the_next_goes_on(stage: Stage) -> None:
    for retention in (DAY, None):
        for _ in range(5):
            await stage.ended(retention=retention)
    stage.clock.move(DAY)
    assert [await stage.ledger.prune(limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert [await stage.ledger.prune(older_than=0, limit=3) for _ in range(3)] == [3, 2, 0]


async def test_what_a_live_record_still_waits_for_is_there(stage: Stage) -> None:
    """What has ended is waited for by nobody: who waited was let go in the same transaction."""
    before = await stage.running(retention=0.0)
    waiting = await stage.queued(after=after(before.id))
    assert await stage.ledger.prune(older_than=0) == 0
    await stage.ledger.settle([settlement(before)])
    stage.clock.move(1)
    assert await stage.ledger.prune() == 1
    assert stage.now_is(waiting).state == State.QUEUED


async def test_a_pruned_record_is_unknown_and_its_key_free(stage: Stage) -> None:
    record = await stage.ended(key="k", retention=DAY)
    stage.clock.move(DAY)
    await stage.ledger.prune()
    assert await stage.ledger.select(ids=[record.id]) == []
    assert (await stage.queued(key="k")).state == State.QUEUED
