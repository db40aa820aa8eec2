"""What a slot stores and asks for between two tasks goes in one message, and means what it means in many."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from segundo.ledger.postgres import PostgresLedger
from segundo.ledger.postgres.connecting import Place
from segundo.record import Record, State
from tests.ledger.suite import PostgresStore, after, call, settlement
from tests.postgres import Schemas
from tests.support import wait_until_async

pytestmark = pytest.mark.postgres

Stored = list[tuple[bool, BaseException | None]]


class Slot:
    """The thread of a Celery slot on a ledger, and the messages that its session sends meanwhile."""

    def __init__(self, url: str) -> None:
        self.messages: list[str] = []
        self.breaks = False
        self.stored: Stored = []
        self._place = Place.at(url)
        self.ledger = PostgresLedger(url, patience=0, connect=lambda: Session(self._place.connect(), self))

    def put(self, record: Record, **fields: Any) -> None:
        """Keep the outcome for the next transaction."""
        self.ledger.put(settlement(record, **fields), lambda mine, error: self.stored.append((mine, error)))

    async def take(self, id: str) -> Record | None:
        return await asyncio.to_thread(self.ledger.take, "me", id)

    async def swap(self, ended: Record, id: str, **fields: Any) -> Record | None:
        """Between two tasks."""

        def swap() -> Record | None:
            self.put(ended, **fields)
            return self.ledger.take("me", id)

        return await asyncio.to_thread(swap)

    async def until_stored(self) -> tuple[bool, BaseException | None]:
        await wait_until_async(lambda: bool(self.stored), 20)
        return self.stored.pop()


class Session:
    """Tells its slot what is sent; breaks after its next COMMIT if that says so."""

    def __init__(self, real: "psycopg.Connection[Any]", slot: Slot) -> None:
        self._real = real
        self._slot = slot

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def execute(self, query: Any, *parameters: Any) -> Any:
        text = query.decode() if isinstance(query, bytes) else str(query)
        self._slot.messages.append(text)
        answer = self._real.execute(query, *parameters)
        if self._slot.breaks and text.strip().endswith("COMMIT"):
            self._slot.breaks = False
            self._real.close()
            raise psycopg.OperationalError("the link broke")
        return answer


@pytest.fixture
async def slot(url: str) -> AsyncIterator[Slot]:
    slot = Slot(url)
    await slot.ledger.open()
    await slot.ledger.join("me")
    yield slot
    await slot.ledger.close(dead=True)


async def queued(slot: Slot, count: int, **fields: Any) -> list[str]:
    calls = [call(crash_limit=1, **fields) for _ in range(count)]
    return [record.id for record in await slot.ledger.record(calls, owner="me")]


async def running(slot: Slot, id: str) -> Record:
    record = await slot.take(id)
    assert record is not None
    return record


async def states(slot: Slot) -> Counter[tuple[str, int]]:
    return Counter((record.state, record.claim) for record in await slot.ledger.select(limit=1000))


async def test_an_outcome_and_the_next_claim_are_one_message_and_one_commit(slot: Slot) -> None:
    first, second, _ = await queued(slot, 3)
    ended = await running(slot, first)
    slot.messages.clear()
    commits = slot.ledger.commits
    claimed = await slot.swap(ended, second, result='"sent"')
    assert (claimed and claimed.id, claimed and claimed.owner) == (second, "me")
    assert len(slot.messages) == 1
    assert slot.ledger.commits == commits + 1
    assert await slot.until_stored() == (True, None)
    (stored,) = await slot.ledger.select(ids=[first])
    assert (stored.state, stored.result, stored.owner) == (State.SUCCEEDED, '"sent"', None)
    assert await states(slot) == {("succeeded", 1): 1, ("running", 1): 1, ("queued", 0): 1}


@pytest.mark.parametrize("wipe", [None, "at the end", "secret"])
async def test_an_exchange_deletes_what_is_not_to_be_kept(slot: Slot, wipe: str | None) -> None:
    first, second = await queued(slot, 2, wipe=wipe, carried="{}")
    await slot.swap(await running(slot, first), second)
    (stored,) = await slot.ledger.select(ids=[first])
    assert (stored.arguments, stored.carried) == ((None, None) if wipe else ('{"n": 1}', "{}"))


async def test_a_claim_that_is_no_longer_held_is_not_settled_by_an_exchange(slot: Slot) -> None:
    first, second = await queued(slot, 2)
    ended = await running(slot, first)
    assert await slot.ledger.settle([settlement(ended)]) == [True]
    assert await slot.swap(ended, second) is not None
    assert await slot.until_stored() == (False, None)
    assert await states(slot) == {("succeeded", 1): 1, ("running", 1): 1}


async def test_an_exchange_does_not_end_the_attempt_that_came_after_its_own(slot: Slot) -> None:
    first, second = await queued(slot, 2)
    ended = await running(slot, first)
    assert await slot.ledger.settle([settlement(ended, State.QUEUED, counted=False)]) == [True]
    assert (await running(slot, first)).claim == 2
    assert await slot.swap(ended, second) is not None
    assert await slot.until_stored() == (False, None)
    assert await states(slot) == {("running", 2): 1, ("running", 1): 1}


@pytest.mark.parametrize("fields", [{"delay": 60.0}, {"held": True}], ids=["not due", "held"])
async def test_what_may_not_run_yet_is_not_claimed_by_an_exchange(slot: Slot, fields: dict[str, Any]) -> None:
    (first,) = await queued(slot, 1)
    (second,) = [record.id for record in await slot.ledger.record([call(**fields)], owner="me")]
    assert await slot.swap(await running(slot, first), second) is None
    assert await slot.until_stored() == (True, None)


async def test_what_was_put_behind_a_record_goes_on_when_an_exchange_has_ended_it(slot: Slot) -> None:
    first, second = await queued(slot, 2)
    ended = await running(slot, first)
    (behind,) = await slot.ledger.record([call(after=after(first))], owner="me")
    await slot.swap(ended, second)
    assert await slot.until_stored() == (True, None)
    assert [record.state for record in await slot.ledger.select(ids=[behind.id])] == [State.QUEUED]


async def test_an_exchange_sees_what_was_just_put_behind_a_record(slot: Slot, url: str) -> None:
    """It waits for who does that, and its snapshot may be older: then who waits would wait for ever."""
    first, second = await queued(slot, 2)
    ended = await running(slot, first)
    with Place.at(url).connect() as other, other.transaction():
        other.execute("SELECT 1 FROM records WHERE id = %s FOR SHARE", (first,))
        other.execute(
            "INSERT INTO records (id, task, queue, priority, state, crash_limit, format, created_at, run_at) "
            "SELECT 'behind', task, queue, priority, 'waiting', 1, format, created_at, run_at "
            "FROM records WHERE id = %s",
            (first,),
        )
        other.execute("INSERT INTO links VALUES (%s, 'behind', 'cancel')", (first,))
        swapping = asyncio.ensure_future(slot.swap(ended, second))
        await wait_until_async(lambda: waits_for_a_lock(url), 20)
    assert await swapping is not None
    assert await slot.until_stored() == (True, None)
    assert [record.state for record in await slot.ledger.select(ids=["behind"])] == [State.QUEUED]


def waits_for_a_lock(url: str) -> bool:
    with Place.at(url).connect() as looking:
        asked = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%exchange%'"
        return looking.execute(asked).fetchone() is not None


async def test_an_exchange_without_an_answer_is_made_once(slot: Slot) -> None:
    first, second = await queued(slot, 2)
    ended = await running(slot, first)
    slot.breaks = True
    # It is ours, and nobody here knows: the next beat finds it, and puts it back.
    assert await slot.swap(ended, second) is None
    assert await slot.until_stored() == (True, None)
    assert await states(slot) == {("succeeded", 1): 1, ("running", 1): 1}
    await slot.ledger.beat("me", running=[])
    assert await states(slot) == {("succeeded", 1): 1, ("queued", 1): 1}
    assert await slot.take(second) is not None


async def test_who_was_taken_for_dead_settles_nothing_by_an_exchange_and_claims_as_one_who_is_back(
    slot: Slot, url: str, schemas: Schemas, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = await queued(slot, 2)
    ended = await running(slot, first)
    PostgresStore(url).bury("me")
    other = PostgresLedger(url, patience=0)
    await other.open()
    assert [record.id for record in await other.rescue()] == [first]
    with caplog.at_level(logging.WARNING, "segundo.ledger"):
        assert await slot.swap(ended, second) is not None
    assert "taken for dead" in caplog.text
    assert await slot.until_stored() == (False, None)
    assert schemas.rows(url, "SELECT count(*) FROM workers WHERE id = 'me'") == [(1,)]
    assert [record.id for record in await other.rescue()] == []
    await other.close()


async def test_slots_that_swap_at_once_run_each_record_once(slot: Slot) -> None:
    ids = await queued(slot, 200)
    taken: Counter[str] = Counter()

    def work(mine: list[str]) -> None:
        for id in mine:
            record = slot.ledger.take("me", id)
            if record is not None:
                taken[record.id] += 1
                slot.put(record)

    await asyncio.gather(*(asyncio.to_thread(work, ids[start:] + ids[:start]) for start in (0, 50, 100, 150)))
    await wait_until_async(lambda: len(slot.stored) == 200, 20)
    assert set(slot.stored) == {(True, None)}
    assert set(taken.values()) == {1}
    assert await states(slot) == {("succeeded", 1): 200}


async def test_an_outcome_is_stored_though_nothing_is_asked_for_any_more(slot: Slot) -> None:
    for id in await queued(slot, 3):
        slot.put(await running(slot, id))
        assert await slot.until_stored() == (True, None)


async def test_an_outcome_that_is_not_a_plain_success_goes_its_ordinary_way(slot: Slot) -> None:
    first, second = await queued(slot, 2)
    ended = await running(slot, first)
    assert await slot.swap(ended, second, state=State.FAILED, reason="ValueError") is not None
    assert await slot.until_stored() == (True, None)
    assert await states(slot) == {("failed", 1): 1, ("running", 1): 1}


async def test_a_message_that_names_what_can_be_no_id_holds_up_no_outcome(slot: Slot) -> None:
    (first,) = await queued(slot, 1)
    ended = await running(slot, first)
    assert await slot.swap(ended, "no\0id") is None
    assert await slot.until_stored() == (True, None)
