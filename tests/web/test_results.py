"""Waiting for what a call returns: by its handle or an id; where it fails, and where it never comes."""

import asyncio
import pickle
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from pydantic import BaseModel

import segundo
from segundo import BackgroundTasks, Handle, RetryLater, Segundo, SegundoError, TaskFailed, current, task
from segundo.errors import LedgerUnavailable, PayloadError, TaskCancelled, UnknownRecord
from segundo.failure import Cause
from tests.support import wait_until_async
from tests.web.apps import LEDGER, ended, lifespan, running, states
from tests.web.tasks import declared, declared_async, note


class Line(BaseModel):
    article: UUID
    price: Decimal


@dataclass(frozen=True)
class Receipt:
    day: date
    lines: tuple[Line, ...]
    took: timedelta | None = None


ARTICLE = UUID(int=7)
RECEIPT = Receipt(date(2026, 1, 2), (Line(article=ARTICLE, price=Decimal("1.50")),), timedelta(seconds=1))


@task
async def buy(article: UUID) -> Receipt:
    return Receipt(RECEIPT.day, (Line(article=article, price=Decimal("1.50")),), RECEIPT.took)


@task
def buy_in_a_thread(article: UUID) -> Receipt:
    return Receipt(RECEIPT.day, (Line(article=article, price=Decimal("1.50")),), RECEIPT.took)


@task
async def fails(why: str) -> int:
    try:
        raise OSError("the disk")
    except OSError as error:
        problem = ValueError(why)
        problem.add_note("look at the disk")
        raise problem from error


gates: dict[str, asyncio.Event] = {}


@task
async def waits(name: str) -> str:
    await gates.setdefault(name, asyncio.Event()).wait()
    return name


@pytest.fixture(autouse=True)
def no_gates() -> None:
    gates.clear()


# What comes back


@pytest.mark.parametrize("function", [buy, buy_in_a_thread])
async def test_a_result_comes_back_as_the_task_returned_it_models_and_dataclasses_too(
    segundo: Segundo, function: Any
) -> None:
    assert await (await segundo.submit(function, ARTICLE)).result() == RECEIPT


async def test_who_waits_before_the_task_has_run_gets_its_result_when_it_has(segundo: Segundo) -> None:
    handle = await segundo.submit(waits, "gate")
    waiting = [asyncio.ensure_future(handle.result()) for _ in range(3)]
    await wait_until_async(lambda: "gate" in gates)
    assert not any(each.done() for each in waiting)
    gates["gate"].set()
    assert await asyncio.gather(*waiting) == ["gate"] * 3


async def test_a_plain_functions_result_is_dropped_and_who_waits_gets_none(segundo: Segundo) -> None:
    assert await (await segundo.submit(plain_of_ours, "task")).result() is None  # type: ignore[func-returns-value]


def plain_of_ours(event: str) -> None:
    note(event)


async def test_the_handle_of_a_requests_call_gives_its_result_after_the_request() -> None:
    app, handles = FastAPI(), list[Handle[str]]()
    Segundo(app)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        handles.append(tasks.add_task(declared_async, "task"))

    async with running(app) as client:
        await client.post("/")
        assert await handles[0].result() == "TASK"


async def test_a_record_that_another_process_runs_gives_its_result_here() -> None:
    recorder, worker = FastAPI(), FastAPI()
    recording = Segundo(recorder, concurrency=0)
    Segundo(worker)
    async with lifespan(recorder):
        handle = await recording.submit(buy, ARTICLE)
        waiting = asyncio.ensure_future(handle.result())
        async with lifespan(worker):
            assert await waiting == RECEIPT


async def test_an_id_is_enough_to_find_the_record_and_its_result(segundo: Segundo) -> None:
    handle = await segundo.submit(declared, "task")
    assert handle.id is not None
    by_id = segundo.handle(handle.id, declared)
    assert await by_id.result() == "TASK"
    found = await segundo.find(handle.id)
    assert found is not None
    assert (found.state, found.result) == ("succeeded", '"TASK"')
    assert await segundo.find("0" * 36) is None


async def test_a_duplicates_handle_and_its_id_wait_for_the_live_record(segundo: Segundo) -> None:
    first = await segundo.submit(waits.options(key="one"), "gate")
    second = await segundo.submit(waits.options(key="one"), "gate")
    waiting = [
        asyncio.ensure_future(handle.result()) for handle in (second, segundo.handle(second.record.id))
    ]
    await wait_until_async(lambda: "gate" in gates)
    gates["gate"].set()
    assert (second.id, await asyncio.gather(*waiting)) == (first.id, ["gate", "gate"])


async def test_a_record_that_is_tried_again_is_waited_for_until_it_has_ended(segundo: Segundo) -> None:
    assert await (await segundo.submit(second_time)).result() == 2


@task(retry=segundo.Retry(attempts=2))
async def second_time() -> int:
    if current().attempt == 1:
        raise RetryLater(0)
    return current().attempt


def test_in_the_test_mode_a_result_is_there_when_the_clients_call_returns() -> None:
    app, handles = FastAPI(), list[Handle[str]]()
    seg = Segundo(app, status="/tasks")

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        handles.append(tasks.add_task(declared_async, "task"))

    @app.get("/result/{id}")
    async def result(id: str) -> str:
        return await seg.handle(id, declared_async).result(timeout=10)

    with TestClient(app) as started:
        for client in (TestClient(app), started):
            client.post("/")
            assert client.get(f"/result/{handles[-1].id}").json() == "TASK"


# What fails


async def test_a_failed_call_raises_with_the_exception_as_it_was_recorded(segundo: Segundo) -> None:
    handle = await segundo.submit(fails, "no paper")
    with pytest.raises(TaskFailed) as raised:
        await handle.result()
    failed = raised.value
    assert (failed.id, failed.task, failed.reason) == (
        handle.id,
        "tests.web.test_results:fails",
        "ValueError",
    )
    assert failed.error is not None
    assert (failed.error.type, failed.error.message) == ("ValueError", "no paper")
    assert failed.error.notes == ("look at the disk",)
    assert failed.error.causes == (Cause("OSError", "the disk"),)
    assert "raise problem from error" in failed.error.traceback
    assert str(failed) == f"tests.web.test_results:fails {handle.id} failed: ValueError: no paper"
    assert isinstance(failed, SegundoError)
    assert not isinstance(failed, TaskCancelled)
    again = pickle.loads(pickle.dumps(failed))
    assert (str(again), again.error) == (str(failed), failed.error)


async def test_a_cancelled_call_raises_and_says_why(segundo: Segundo) -> None:
    doomed = await segundo.submit(declared.options(delay=3600), "task")
    behind = await segundo.submit(declared.options(after=doomed), "task")
    waiting = [asyncio.ensure_future(handle.result()) for handle in (doomed, behind)]
    await segundo.ledger.cancel(doomed.record.id)
    first, second = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(first, TaskCancelled)
    assert isinstance(second, TaskCancelled)
    assert (first.reason, second.reason) == ("Cancelled", "PredecessorFailed")
    assert (first.error, str(first)) == (
        None,
        f"tests.web.tasks:declared {doomed.id} was cancelled: Cancelled",
    )


async def test_a_result_that_does_not_fit_its_task_any_more_is_an_error_that_says_so(
    segundo: Segundo,
) -> None:
    handle = await segundo.submit(declared, "task")
    await handle.result()
    with closing(sqlite3.connect(LEDGER)) as connection, connection:
        connection.execute("UPDATE records SET result = '[1]'")
    with pytest.raises(PayloadError, match="recorded value cannot be read"):
        await handle.result()


async def test_a_record_is_found_by_its_id_and_not_by_its_handle(segundo: Segundo) -> None:
    handle: Any = await segundo.submit(declared, "task")
    for ask in (segundo.find, segundo.cancel):
        with pytest.raises(TypeError, match=r"by its id, a text, as in handle\.id"):
            await ask(handle)
    with pytest.raises(TypeError, match=r"by its id, a text, as in handle\.id"):
        segundo.handle(handle)


async def test_an_id_that_is_unknown_or_was_deleted_is_an_error_at_once(segundo: Segundo) -> None:
    handle = await segundo.submit(declared, "task")
    await handle.result()
    await segundo.ledger.prune(older_than=0)
    for gone in (handle, segundo.handle("0" * 36)):
        with pytest.raises(UnknownRecord, match="deleted after its retention"):
            await gone.result()


# Patience


async def test_who_waits_no_longer_leaves_the_record_as_it_is(segundo: Segundo) -> None:
    handle = await segundo.submit(waits, "gate")
    with pytest.raises(TimeoutError):
        await handle.result(timeout=0.01)
    await wait_until_async(lambda: "gate" in gates)
    assert states() == ["running"]
    gates["gate"].set()
    assert await handle.result() == "gate"


async def test_who_is_cancelled_while_waiting_leaves_the_record_as_it_is(segundo: Segundo) -> None:
    handle = await segundo.submit(waits, "gate")
    waiting = asyncio.ensure_future(handle.result())
    await wait_until_async(lambda: "gate" in gates)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    gates["gate"].set()
    assert await handle.result() == "gate"


async def test_who_still_waits_when_the_app_stops_is_told() -> None:
    app = FastAPI()
    seg = Segundo(app)
    async with lifespan(app):
        handle = await seg.submit(declared.options(delay=3600), "task")
        waiting = asyncio.ensure_future(handle.result())
        await wait_until_async(lambda: len(states()) == 1)
    with pytest.raises(LedgerUnavailable):
        await waiting
    with pytest.raises(LedgerUnavailable, match="not open"):
        await handle.result()


# Where it could never come


async def test_a_call_in_process_has_no_result_to_wait_for() -> None:
    handle: Handle[None] = segundo.BackgroundTasks().add_task(note, "task")
    with pytest.raises(RuntimeError, match="runs in process"):
        await handle.result()


async def refused(handle: Handle[Any], why: str) -> None:
    with pytest.raises(RuntimeError, match=why):
        await handle.result()


async def in_the_endpoint(tasks: BackgroundTasks) -> None:
    await refused(
        tasks.add_task(declared, "task"), "not recorded yet. A request.* when its endpoint has returned"
    )


async def in_a_stream(tasks: BackgroundTasks) -> StreamingResponse:
    handle = tasks.add_task(declared, "task")

    async def body() -> AsyncGenerator[str]:
        await refused(handle, "who waits inside the request waits for itself")
        yield "streamed"

    return StreamingResponse(body())


async def dependency(tasks: BackgroundTasks) -> AsyncGenerator[list[Handle[str]]]:
    handles: list[Handle[str]] = []
    yield handles
    await refused(handles[0], "who waits inside the request waits for itself")


async def in_exit_code(tasks: BackgroundTasks, handles: list[Handle[str]] = Depends(dependency)) -> None:
    handles.append(tasks.add_task(declared, "task"))


async def in_a_call_in_process(tasks: BackgroundTasks) -> None:
    handle = tasks.add_task(declared, "task")

    async def call() -> None:
        await refused(handle, "who waits inside the request waits for itself")

    tasks.add_task(call)


@pytest.mark.parametrize("endpoint", [in_the_endpoint, in_a_stream, in_exit_code, in_a_call_in_process])
async def test_who_would_wait_for_its_own_request_to_end_is_told_at_once(
    endpoint: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    Segundo(app)
    app.post("/", response_model=None)(endpoint)
    async with running(app) as client:
        assert (await client.post("/")).status_code == 200
        (record,) = await ended(1)
    assert record["state"] == "succeeded"
    assert [each.getMessage() for each in caplog.records if each.levelname == "ERROR"] == []


async def test_another_request_may_wait_for_a_call_whose_own_is_not_over() -> None:
    app, handles, open_ = FastAPI(), list[Handle[str]](), asyncio.Event()
    Segundo(app)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> StreamingResponse:
        handles.append(tasks.add_task(declared, "task"))

        async def body() -> AsyncGenerator[str]:
            await open_.wait()
            yield "streamed"

        return StreamingResponse(body())

    async with running(app) as client:
        request = asyncio.ensure_future(client.post("/"))
        await wait_until_async(lambda: handles and handles[0].recorded)
        waiting = asyncio.ensure_future(handles[0].result())
        await wait_until_async(lambda: states() == ["waiting"])
        open_.set()
        assert await waiting == "TASK"
        await request


def test_a_websocket_may_wait_for_what_it_adds_once_that_is_recorded() -> None:
    app = FastAPI()
    Segundo(app)

    @app.websocket("/")
    async def socket(websocket: WebSocket, tasks: BackgroundTasks) -> None:
        await websocket.accept()
        handle = tasks.add_task(declared, "task")
        for asked in (handle.result, handle.cancel):
            with pytest.raises(RuntimeError, match=r"not recorded yet.*await tasks.flush\(\)"):
                await asked()
        with pytest.raises(RuntimeError, match=r"not recorded yet.*await tasks.flush\(\)"):
            print(handle.record)
        await tasks.flush()
        await websocket.send_text(await handle.result())

    with TestClient(app).websocket_connect("/") as websocket:
        assert websocket.receive_text() == "TASK"
