"""A cancel of what runs: whoever asks, in whichever process, it is heard at once, and says how it ended."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI

from segundo import INJECTED, Retry, Segundo, current, task
from segundo.executors import embedded
from segundo.ledger.sqlite import SQLiteLedger
from segundo.record import State
from segundo.runner import Stop
from tests.support import wait_until, wait_until_async
from tests.web.apps import LEDGER, ended, records, running, states
from tests.web.tasks import events, note

AGAIN = Retry(attempts=3, wait="constant", base=0)
gate = threading.Event()


@pytest.fixture(autouse=True)
def no_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is heard of by the look that is taken now and then."""
    monkeypatch.setattr(embedded, "BEAT", 3600)
    gate.clear()


async def started(segundo: Segundo, function: Any) -> str:
    """The id of a call that has begun to run."""
    handle = await segundo.submit(function)
    await wait_until_async(lambda: "begins" in events())
    assert handle.id is not None
    return str(handle.id)


async def cancel_elsewhere(id: str) -> None:
    """As another process does, by a ledger of its own."""
    ledger = SQLiteLedger(LEDGER.absolute())
    await ledger.open()
    record = await ledger.cancel(id)
    assert record.state is State.RUNNING
    assert record.cancel_requested
    await ledger.close()


@task(retry=AGAIN)
async def sleeps() -> None:
    note("begins")
    try:
        await asyncio.sleep(3600)
    finally:
        note(f"cancelled: {current().cancelled}")


@task
async def child() -> None:
    note("the child runs")


@task(retry=AGAIN)
async def adds_and_sleeps() -> None:
    current().add_task(child)
    await sleeps()


@task
def looks() -> str:
    note("begins")
    while not current().cancelled:
        gate.wait(0.005)
    note("sees it")
    gate.wait(20)
    return "all the same"


@task
def checks() -> None:
    note("begins")
    while True:
        gate.wait(0.005)
        current().check()


@task
async def swallows() -> str:
    note("begins")
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        note("swallowed")
    await asyncio.sleep(0)
    return "all the same"


@task(retry=AGAIN)
async def fails_in_its_cleanup() -> None:
    note("begins")
    try:
        await asyncio.sleep(3600)
    finally:
        raise OSError("while cleaning up")


@task(retry=AGAIN)
async def cleans_up_slowly() -> None:
    note("begins")
    try:
        await asyncio.sleep(3600)
    finally:
        note("cleaning up")
        await asyncio.to_thread(gate.wait, 20)
        note("clean")


@task(retry=Retry(attempts=2, wait="constant", base=3600))
async def fails_at_first() -> None:
    note("begins")
    raise OSError


async def session() -> AsyncIterator[str]:
    try:
        yield "session"
        note("commit")
    except BaseException as error:
        note(f"rollback: {type(error).__name__}")
        raise


@task
async def in_a_session(session: Annotated[str, Depends(session)] = INJECTED) -> None:
    await sleeps()


@pytest.mark.parametrize("elsewhere", [True, False])
async def test_an_async_task_is_cancelled_at_its_next_await_and_not_tried_again(
    segundo: Segundo, elsewhere: bool
) -> None:
    id = await started(segundo, adds_and_sleeps)
    await (cancel_elsewhere(id) if elsewhere else segundo.ledger.cancel(id))
    (record,) = await ended(1)  # its child is not recorded
    assert (record["state"], record["reason"], record["claim"]) == ("cancelled", "Cancelled", 1)
    assert (record["failures"], record["error"]) == (0, None)
    assert events() == ["begins", "cancelled: True"]


async def test_the_dependencies_of_a_cancelled_task_are_rolled_back_first(segundo: Segundo) -> None:
    id = await started(segundo, in_a_session)
    await cancel_elsewhere(id)
    await ended(1)
    assert states() == ["cancelled"]
    assert events() == ["begins", "cancelled: True", "rollback: CancelledError"]


async def test_a_def_sees_that_it_is_cancelled_and_may_succeed_all_the_same(segundo: Segundo) -> None:
    id = await started(segundo, looks)
    await cancel_elsewhere(id)
    await wait_until_async(lambda: events() == ["begins", "sees it"])
    assert states() == ["running"]
    gate.set()
    (record,) = await ended(1)
    assert (record["state"], record["result"]) == ("succeeded", '"all the same"')


async def test_a_def_that_checks_ends_cancelled(segundo: Segundo) -> None:
    id = await started(segundo, checks)
    await cancel_elsewhere(id)
    (record,) = await ended(1)
    assert (record["state"], record["reason"]) == ("cancelled", "Cancelled")


async def test_what_swallows_its_cancellation_ends_as_what_it_returns(segundo: Segundo) -> None:
    id = await started(segundo, swallows)
    await cancel_elsewhere(id)
    (record,) = await ended(1)
    assert (record["state"], record["result"]) == ("succeeded", '"all the same"')
    assert events() == ["begins", "swallowed"]


async def test_what_fails_in_its_cleanup_is_cancelled_and_says_what_went_wrong(
    segundo: Segundo, caplog: pytest.LogCaptureFixture
) -> None:
    id = await started(segundo, fails_in_its_cleanup)
    await cancel_elsewhere(id)
    (record,) = await ended(1)
    assert (record["state"], record["reason"], record["claim"]) == ("cancelled", "Cancelled", 1)
    assert "while cleaning up" in record["error"]
    assert "failed as it was cancelled" in caplog.text


async def test_a_second_cancel_does_not_disturb_the_cleanup(segundo: Segundo) -> None:
    id = await started(segundo, cleans_up_slowly)
    await cancel_elsewhere(id)
    await wait_until_async(lambda: events() == ["begins", "cleaning up"])
    await cancel_elsewhere(id)
    await segundo.ledger.cancel(id)
    await wait_until_async(lambda: heard(segundo))
    gate.set()
    await ended(1)
    assert states() == ["cancelled"]
    assert events() == ["begins", "cleaning up", "clean"]


def heard(segundo: Segundo) -> bool:
    """Whether all that was asked for until now has been looked at."""
    runtime = segundo._runtime
    assert runtime is not None
    executor = runtime._embedded
    return not executor._asked.is_set() and not executor._claiming.locked()


async def test_a_cancel_while_the_next_attempt_is_waited_for_is_at_once(segundo: Segundo) -> None:
    handle = await segundo.submit(fails_at_first)
    await wait_until_async(lambda: records()[0]["failures"] == 1)
    record = await segundo.ledger.cancel(str(handle.id))
    assert (record.state, record.reason) == (State.CANCELLED, "Cancelled")
    assert "OSError" in str(record.error)


@pytest.mark.parametrize("function", [sleeps, looks, in_a_session])
async def test_what_is_cancelled_before_its_first_step_never_begins(segundo: Segundo, function: Any) -> None:
    handle = await segundo.submit(function.options(delay=3600))
    runtime = segundo._runtime
    assert runtime is not None
    attempt = runtime._runner.attempt(handle.record.claimed("me", 0))
    attempt.stop(Stop.CANCELLED)
    settlement = await runtime._runner.run(attempt)
    assert (settlement.state, settlement.reason, settlement.error) == (State.CANCELLED, "Cancelled", None)
    assert events() == []


async def test_a_cancel_reaches_what_is_just_being_released() -> None:
    # While nothing goes on here, another cancels what the ledger has started for us: we are told of both.
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    async def add(tasks: BackgroundTasks) -> None:
        tasks.add_task(sleeps)

    def all_at_once() -> None:
        wait_until(lambda: states() == ["running"])
        with ThreadPoolExecutor(1) as other:
            other.submit(asyncio.run, cancel_elsewhere(records()[0]["id"])).result()

    async with running(app) as client:
        await client.post("/")
        for _ in range(3):
            await asyncio.sleep(0)  # the release is posted
        all_at_once()
        await ended(1)
    assert states() == ["cancelled"]
    assert "cancelled: True" in events() or events() == []
