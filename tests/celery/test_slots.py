"""The threads of Celery's slots, which claim and settle past the event loop, beside what goes on there."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from segundo import current, task
from segundo.context import Children, Home
from segundo.executors.celery.by_message import ByMessage
from segundo.ledger.sqlite import SQLiteLedger
from segundo.names import Names
from segundo.record import Call, State, new_id
from segundo.runner import Runner
from segundo.threads import Threads
from tests.support import ledger_rows

ran: Counter[int] = Counter()


@task(name="tests.slots:note")
def note(number: int) -> None:
    ran[number] += 1


@task(name="tests.slots:stop")
def stop(number: int) -> None:
    raise SystemExit(number)


@task(name="tests.slots:tell")
def tell(number: int) -> None:
    current().progress(number)


@pytest.fixture
async def ledger() -> AsyncIterator[SQLiteLedger]:
    ran.clear()
    ledger = SQLiteLedger(Path("segundo.db"))
    await ledger.open()
    await ledger.join("me")
    yield ledger
    await ledger.leave("me")
    await ledger.close()


@pytest.fixture
async def slots(ledger: SQLiteLedger) -> AsyncIterator[ByMessage]:
    def make(*_: Any) -> Any:
        raise AssertionError("no child call is made here")

    runner = Runner(
        Names(["tests"], check=lambda _: None),
        Threads(1),
        home=Home(None, make, make),
        carry={},
        chance=random.Random(0),
        progress=ledger.progress,
    )
    slots = ByMessage(ledger, "me", runner, later=lambda _: None)
    await slots.start()
    yield slots
    await slots.stop(grace=10)


async def queued(ledger: SQLiteLedger, count: int, task: str) -> Sequence[str]:
    calls = [
        Call(new_id(), task=task, arguments=f'{{"number":{number}}}', held=False) for number in range(count)
    ]
    return [record.id for record in await ledger.record(calls, owner="me")]


def states() -> Counter[tuple[str, int]]:
    return Counter((row["state"], row["claim"]) for row in ledger_rows(Path("segundo.db")))


async def test_a_beat_sees_every_record_that_a_slot_takes(ledger: SQLiteLedger, slots: ByMessage) -> None:
    """Else what a slot has just taken would be put back as nobody's, and run twice."""
    ids = await queued(ledger, 300, "tests.slots:note")

    async def beats() -> None:
        while True:
            slots._cancel_asked()
            await asyncio.sleep(0)

    beating = asyncio.create_task(beats())
    taken = [asyncio.to_thread(slots.take, id) for id in ids]
    settlements = await asyncio.gather(*taken)
    beating.cancel()
    await slots.stop(grace=10)
    assert Counter(settlement and settlement.state for settlement in settlements) == {State.SUCCEEDED: 300}
    assert set(ran.values()) == {1}
    assert states() == {("succeeded", 1): 300}


async def test_a_message_that_comes_to_two_slots_at_once_runs_once(
    ledger: SQLiteLedger, slots: ByMessage
) -> None:
    ids = await queued(ledger, 20, "tests.slots:note")
    both = [asyncio.to_thread(slots.take, id) for id in ids for _ in range(2)]
    settlements = await asyncio.gather(*both)
    assert settlements.count(None) == 20
    assert set(ran.values()) == {1}


async def test_the_outcome_of_a_slot_is_stored_though_no_other_message_comes(
    ledger: SQLiteLedger, slots: ByMessage
) -> None:
    (id,) = await queued(ledger, 1, "tests.slots:stop")
    settlement = await asyncio.to_thread(slots.take, id)
    assert settlement is not None
    assert settlement.state is State.FAILED
    async with asyncio.timeout(10):
        async for record in ledger.watch([id]):
            if record.state.terminal:
                break
    assert record.reason == "SystemExit"


async def test_the_last_progress_is_kept_though_the_loop_hears_of_it_as_the_attempt_ends(
    ledger: SQLiteLedger, slots: ByMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, close = asyncio.get_running_loop(), Children.close

    def close_and_let_the_loop_go_on(children: Children) -> tuple[Call, ...]:
        added = close(children)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(10)
        return added

    monkeypatch.setattr(Children, "close", close_and_let_the_loop_go_on)
    (id,) = await queued(ledger, 1, "tests.slots:tell")
    await asyncio.to_thread(slots.take, id)
    await slots.stop(grace=10)
    (row,) = ledger_rows(Path("segundo.db"))
    assert (row["state"], row["progress"]) == ("succeeded", '{"done": 0}')
