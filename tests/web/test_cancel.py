"""A cancel of what runs: whoever asks, in whichever process, it is heard at once, and says how it ended."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Header, HTTPException
from starlette.applications import Starlette

import segundo as segundo_
from segundo import INJECTED, Retry, Segundo, current, task
from segundo.errors import ConfigurationError, TaskCancelled, UnknownRecord
from segundo.executors import embedded
from segundo.ledger.sqlite import SQLiteLedger
from segundo.record import State
from segundo.runner import Stop
from tests.support import wait_until_async
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


HOW = ["elsewhere", "seg.cancel", "handle.cancel"]


async def cancel(segundo: Segundo, id: str, how: str) -> None:
    if how == "elsewhere":
        await cancel_elsewhere(id)
    else:
        record = await (segundo.cancel(id) if how == "seg.cancel" else segundo.handle(id).cancel())
        assert (record.state, record.cancel_requested) == (State.RUNNING, True)


@pytest.mark.parametrize("how", HOW)
async def test_an_async_task_is_cancelled_at_its_next_await_and_not_tried_again(
    segundo: Segundo, how: str
) -> None:
    id = await started(segundo, adds_and_sleeps)
    await cancel(segundo, id, how)
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
    runtime = segundo._life.runtime
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
    runtime = segundo._life.runtime
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
        with ThreadPoolExecutor(1) as other:
            other.submit(asyncio.run, cancel_elsewhere(records()[0]["id"])).result()

    async with running(app) as client:
        await client.post("/")
        await wait_until_async(lambda: states() == ["running"], every=0)
        all_at_once()
        await ended(1)
    assert states() == ["cancelled"]
    assert "cancelled: True" in events() or events() == []


async def test_who_awaits_what_is_cancelled_is_told_and_of_the_cleanup_too(segundo: Segundo) -> None:
    handle = await segundo.submit(fails_in_its_cleanup)
    await wait_until_async(lambda: "begins" in events())
    await handle.cancel()
    with pytest.raises(TaskCancelled) as cancelled:
        await handle.result(timeout=10)
    assert cancelled.value.reason == "Cancelled"
    assert cancelled.value.error is not None
    assert cancelled.value.error.message == "while cleaning up"


async def test_what_has_ended_stays_as_it_is_however_often_it_is_cancelled(segundo: Segundo) -> None:
    handle = await segundo.submit(child)
    await ended(1)
    for _ in range(2):
        assert (await handle.cancel()).state is State.SUCCEEDED
    with pytest.raises(UnknownRecord):
        await segundo.cancel("0" * 36)


async def test_a_handle_without_a_record_says_that_there_is_nothing_to_cancel() -> None:
    app = FastAPI()
    Segundo(app)
    said: list[str] = []

    @app.post("/")
    async def add(tasks: segundo_.BackgroundTasks) -> None:
        calls = {
            "not recorded yet.* leave the call out instead": tasks.add_task(child),
            "runs in process and has no record": tasks.add_task(lambda: None),
        }
        for why, handle in calls.items():
            with pytest.raises(RuntimeError, match=why) as error:
                await handle.cancel()
            said.append(str(error.value))

    async with running(app) as client:
        await client.post("/")
    assert len(said) == 2


async def test_in_test_mode_what_runs_inline_is_cancelled_too() -> None:
    app = FastAPI()
    seg = Segundo(app, ledger="memory://")

    @app.post("/")
    async def add(tasks: BackgroundTasks) -> None:
        tasks.add_task(sleeps)

    async with running(app) as client:
        request = asyncio.ensure_future(client.post("/"))
        await wait_until_async(lambda: "begins" in events())
        (record,) = await seg.ledger.select()
        await seg.cancel(record.id)
        await request
        (record,) = await seg.ledger.select()
    assert (record.state, events()) == (State.CANCELLED, ["begins", "cancelled: True"])


# By HTTP


def operator(authorization: Annotated[str, Header()] = "") -> None:
    if authorization != "operator":
        raise HTTPException(403)


def app_with(**settings: Any) -> FastAPI:
    app = FastAPI()
    Segundo(app, **{"status": "/tasks", **settings})

    @app.post("/{kind}")
    async def add(kind: str, tasks: BackgroundTasks) -> None:
        tasks.add_task({"sleeps": sleeps, "child": child, "later": child.options(delay=3600)}[kind])

    return app


OPERATOR = {"authorization": "operator"}
READER = APIRouter(prefix="/tasks", dependencies=[Depends(lambda: None)])


@pytest.mark.parametrize("status", ["/tasks", READER])
async def test_nobody_cancels_by_http_until_the_app_says_who_may(status: Any) -> None:
    async with running(app_with(status=status)) as client:
        await client.post("/later")
        await wait_until_async(lambda: states() == ["queued"])
        answer = await client.post(f"/tasks/{records()[0]['id']}/cancel")
        assert answer.status_code == 404
        assert "/tasks/{id}/cancel" not in (await client.get("/openapi.json")).json()["paths"]
    assert states() == ["queued"]


async def test_who_may_cancels_and_who_may_not_is_refused() -> None:
    router = APIRouter(prefix="/tasks", dependencies=[Depends(lambda: None)])
    async with running(app_with(status=router, cancel=Depends(operator))) as client:
        await client.post("/later")
        await wait_until_async(lambda: states() == ["queued"])
        address = f"/tasks/{records()[0]['id']}/cancel"
        assert (await client.post(address)).status_code == 403
        assert states() == ["queued"]
        for _ in range(2):
            answer = await client.post(address, headers=OPERATOR)
            assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
            assert answer.json()["reason"] == "Cancelled"
        assert (await client.post(f"/tasks/{'0' * 36}/cancel", headers=OPERATOR)).status_code == 404


async def test_a_cancel_of_what_runs_is_accepted_and_of_what_has_ended_a_conflict() -> None:
    async with running(app_with(cancel=Depends(operator))) as client:
        await client.post("/sleeps")
        await wait_until_async(lambda: "begins" in events())
        address = f"/tasks/{records()[0]['id']}/cancel"
        answer = await client.post(address, headers=OPERATOR)
        assert (answer.status_code, answer.json()["state"]) == (202, "running")
        assert "reason" not in answer.json()  # whom no dependency lets read it
        await ended(1)
        await client.post("/child")
        await ended(2)
        (succeeded,) = [record["id"] for record in records() if record["state"] == "succeeded"]
        answer = await client.post(f"/tasks/{succeeded}/cancel", headers=OPERATOR)
    assert (answer.status_code, answer.json()) == (409, {"detail": "it has ended already: succeeded"})


async def test_who_may_cancel_can_depend_on_the_record() -> None:
    asked: list[str] = []

    def may_cancel(id: str) -> None:
        asked.append(id)

    async with running(app_with(cancel=Depends(may_cancel))) as client:
        await client.post("/later")
        await wait_until_async(lambda: states() == ["queued"])
        id = records()[0]["id"]
        assert (await client.post(f"/tasks/{id}/cancel")).status_code == 200
    assert asked == [id]


async def test_a_cancel_that_the_ledger_does_not_take_is_answered_503_and_may_be_tried_again() -> None:
    async with running(app_with(cancel=Depends(operator))) as client:
        await client.post("/later")
        await wait_until_async(lambda: states() == ["queued"])
        address = f"/tasks/{records()[0]['id']}/cancel"
        elsewhere = LEDGER.rename("elsewhere.db")
        answer = await client.post(address, headers=OPERATOR)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        elsewhere.rename(LEDGER)
        assert (await client.post(address, headers=OPERATOR)).json()["state"] == "cancelled"


async def test_a_starlette_app_has_the_route_too() -> None:
    app = Starlette()
    seg = Segundo(app, status="/tasks", cancel=Depends(operator))
    async with running(app) as client:
        handle = await seg.submit(child.options(delay=3600))
        address = f"/tasks/{handle.id}/cancel"
        assert (await client.post(address)).status_code == 403
        assert (await client.post(address, headers=OPERATOR)).json()["state"] == "cancelled"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"status": None, "cancel": Depends(operator)}, "needs the status routes"),
        ({"cancel": operator}, "cancel=Depends(may_cancel)"),
        ({"cancel": Depends()}, "cancel=Depends(may_cancel)"),
    ],
)
def test_a_cancel_that_says_not_who_may_is_refused_at_once(settings: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        app_with(**settings)
