"""Waiting for records to change: what is seen, when it ends, and that nobody waits for nothing."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest

from segundo.errors import LedgerUnavailable
from segundo.record import Record, State
from tests.ledger.suite import Stage, settlement
from tests.support import wait_until_async


class Seen:
    """What a watcher has seen so far."""

    def __init__(self, changes: AsyncGenerator[Record]) -> None:
        self.records: list[Record] = []
        self._changes = changes
        self.task = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        async with aclosing(self._changes) as changes:
            async for record in changes:
                self.records.append(record)

    @property
    def states(self) -> list[str]:
        return [record.state.value for record in self.records]

    async def until(self, state: State) -> None:
        await wait_until_async(lambda: self.states[-1:] == [state])


async def all_of(changes: AsyncGenerator[Record]) -> Sequence[Record]:
    return [record async for record in changes]


async def test_who_watches_sees_a_record_as_it_is_and_each_time_it_changes_until_it_has_ended(
    stage: Stage,
) -> None:
    record = await stage.queued()
    seen = Seen(stage.ledger.watch([record.id]))
    await seen.until(State.QUEUED)
    claimed = await stage.claim(record)
    await seen.until(State.RUNNING)
    await stage.ledger.progress(record.id, claimed.claim, '"half"')
    await wait_until_async(lambda: seen.records[-1].progress == '"half"')
    await stage.ledger.settle([settlement(claimed, result="1")])
    await seen.task
    assert (seen.states[-1], seen.records[-1].result) == ("succeeded", "1")
    assert len(seen.records) == len({repr(record) for record in seen.records})


async def test_who_watches_what_has_ended_gets_it_at_once(stage: Stage) -> None:
    ended = await stage.ended()
    assert await all_of(stage.ledger.watch([ended.id])) == [ended]


async def test_who_watches_what_is_unknown_gets_nothing_at_once(stage: Stage) -> None:
    assert await all_of(stage.ledger.watch(["0" * 36])) == []


async def test_who_watches_several_waits_for_the_last_of_them(stage: Stage) -> None:
    first, second, gone = await stage.queued(), await stage.queued(), await stage.ended()
    seen = Seen(stage.ledger.watch([first.id, second.id, "0" * 36, gone.id]))
    await stage.ledger.settle([settlement(await stage.claim(first))])
    await wait_until_async(lambda: (first.id, "succeeded") in {(r.id, r.state) for r in seen.records})
    assert not seen.task.done()
    await stage.ledger.cancel(second.id)
    await seen.task
    assert {(record.id, record.state) for record in seen.records} >= {
        (first.id, "succeeded"),
        (second.id, "cancelled"),
        (gone.id, "succeeded"),
    }


async def test_what_another_process_commits_is_seen(stage: Stage) -> None:
    record = await stage.queued()
    seen = Seen(stage.ledger.watch([record.id]))
    await seen.until(State.QUEUED)
    other = await stage.another("other")
    (claimed,) = await other.claim("other", ids=[record.id], limit=1)
    await other.settle([settlement(claimed)])
    await seen.task
    assert seen.states[-1] == "succeeded"


async def test_who_watches_what_is_deleted_meanwhile_is_not_left_waiting(stage: Stage) -> None:
    first, second = await stage.ended(retention=10.0), await stage.queued()
    seen = Seen(stage.ledger.watch([first.id, second.id]))
    await wait_until_async(lambda: len(seen.records) == 2)
    stage.clock.move(11)
    assert await stage.ledger.prune() == 1
    await stage.ledger.cancel(second.id)
    await seen.task
    assert seen.records[-1].state is State.CANCELLED


async def test_many_who_watch_each_see_the_end(stage: Stage) -> None:
    records = [await stage.running() for _ in range(20)]
    watchers = [Seen(stage.ledger.watch([record.id])) for record in records for _ in range(5)]
    await asyncio.gather(*(stage.ledger.settle([settlement(record)]) for record in records))
    await asyncio.gather(*(watcher.task for watcher in watchers))
    assert {watcher.states[-1] for watcher in watchers} == {"succeeded"}


async def test_who_still_watches_when_the_ledger_closes_is_told(stage: Stage) -> None:
    record = await stage.queued()
    seen = Seen(stage.ledger.watch([record.id]))
    await seen.until(State.QUEUED)
    await stage.ledger.close()
    with pytest.raises(LedgerUnavailable, match="closed while"):
        await seen.task


async def test_who_stops_watching_leaves_nothing_behind(stage: Stage) -> None:
    record, tasks = await stage.queued(), len(asyncio.all_tasks())
    changes = stage.ledger.watch([record.id])
    await anext(changes)
    await changes.aclose()
    await stage.ledger.cancel(record.id)
    await wait_until_async(lambda: len(asyncio.all_tasks()) == tasks)
