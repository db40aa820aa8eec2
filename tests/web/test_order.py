"""When a request's calls are recorded and released, against everything else that a request does."""

from collections.abc import AsyncGenerator, Generator
from typing import Annotated, Any

import fastapi
import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import StreamingResponse

from segundo import BackgroundTasks, Segundo
from tests.web.apps import Watched, ended, records, running, served_client, states
from tests.web.tasks import declared, events, note, note_async


def session() -> Generator[str]:
    yield "session"
    note(f"session closed, {states()}")


def transaction() -> Generator[str]:
    yield "transaction"
    note(f"transaction closed, {states()}")


Session = Annotated[str, Depends(session)]
Transaction = Annotated[str, Depends(transaction, scope="function")]


async def test_a_request_does_everything_in_the_order_that_its_promises_need() -> None:
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks, session: Session, transaction: Transaction) -> None:
        tasks.add_task(lambda: note(f"in process, {states()}"))
        tasks.add_task(note, "task")
        note(f"endpoint, {states()}")

    watched = Watched(app, lambda moment: note(f"{moment}, {states()}") if moment != "over" else None)
    async with served_client(watched) as client:
        assert (await client.post("/")).status_code == 200
        await ended(1)
    assert events() == [
        "endpoint, []",
        "transaction closed, []",
        "first byte, ['waiting']",
        "last byte, ['waiting']",
        "in process, ['waiting']",
        "session closed, ['waiting']",
        "task",
    ]


@pytest.mark.parametrize("endpoint_is_async", [True, False], ids=["async endpoint", "def endpoint"])
@pytest.mark.parametrize("function", [note, note_async], ids=["def task", "async task"])
async def test_a_call_is_recorded_before_the_first_byte_and_runs_after_the_request(
    endpoint_is_async: bool, function: Any
) -> None:
    app = FastAPI()
    Segundo(app)

    async def asynchronous(tasks: fastapi.BackgroundTasks) -> None:
        tasks.add_task(function, "task")

    def synchronous(tasks: fastapi.BackgroundTasks) -> None:
        tasks.add_task(function, "task")

    app.post("/")(asynchronous if endpoint_is_async else synchronous)
    seen: dict[str, list[str]] = {}
    watched = Watched(app, lambda moment: seen.update({moment: states()}))
    async with served_client(watched) as client:
        assert (await client.post("/")).status_code == 200
        (record,) = await ended(1)
    assert (seen["first byte"], seen["last byte"]) == (["waiting"], ["waiting"])
    assert (record["state"], events()) == ("succeeded", ["task"])


async def test_a_streams_calls_are_recorded_before_its_first_byte_and_released_after_its_last() -> None:
    app = FastAPI()
    Segundo(app)

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> StreamingResponse:
        tasks.add_task(note, "task")

        async def body() -> AsyncGenerator[str]:
            for number in range(3):
                note(f"chunk {number}, {states()}")
                yield str(number)

        return StreamingResponse(body())

    async with served_client(app) as client:
        assert (await client.get("/")).text == "012"
        await ended(1)
    assert events() == ["chunk 0, ['waiting']", "chunk 1, ['waiting']", "chunk 2, ['waiting']", "task"]


async def test_plain_calls_run_one_after_another_in_the_order_added_also_behind_one_that_fails() -> None:
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        for number in range(12):
            tasks.add_task(fails_on_multiples_of_three if number % 2 else slowly_in_a_thread, number)

    async with running(app) as client:
        await client.post("/")
        found = await ended(12)
    assert events() == [str(number) for number in range(12)]
    assert sorted(row["arguments"] for row in found if row["state"] == "failed") == [
        '{"number":3}',
        '{"number":9}',
    ]


async def fails_on_multiples_of_three(number: int) -> None:
    note(str(number))
    if number % 3 == 0:
        raise ValueError(number)


def slowly_in_a_thread(number: int) -> None:
    for _ in range(20_000):  # a thread takes its time, so that out of order would show
        pass
    note(str(number))


async def test_the_calls_of_dependencies_come_before_those_of_the_endpoint() -> None:
    app = FastAPI()
    Segundo(app)

    def in_a_dependency(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "dependency")

    @app.post("/", dependencies=[Depends(in_a_dependency)])
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "endpoint")

    async with running(app) as client:
        await client.post("/")
        await ended(2)
    assert events() == ["dependency", "endpoint"]


async def test_a_request_that_fails_after_it_was_answered_releases_what_it_recorded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = FastAPI()
    Segundo(app)

    def fails_at_exit() -> Generator[None]:
        yield
        raise RuntimeError("the session could not be closed")

    @app.post("/", dependencies=[Depends(fails_at_exit)])
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "task")

    async with running(app, raise_app_exceptions=False) as client:
        assert (await client.post("/")).status_code == 200
        await ended(1)
    assert events() == ["task"]
    assert "failed after its calls were recorded; they run all the same" in caplog.text


async def test_handles_know_their_id_at_once_and_their_record_once_it_is_stored() -> None:
    app = FastAPI()
    Segundo(app)
    router = APIRouter()
    handles: list[Any] = []

    @router.post("/")
    async def endpoint(tasks: BackgroundTasks) -> str | None:
        handle = tasks.add_task(declared, "task")
        handles.append(handle)
        with pytest.raises(RuntimeError, match="not recorded yet"):
            print(handle.record)
        assert not handle.recorded
        return handle.id

    app.include_router(router)
    async with running(app) as client:
        id = (await client.post("/")).json()
        (record,) = await ended(1)
    (handle,) = handles
    assert handle.recorded
    assert (handle.id, handle.record.id, handle.record.state) == (id, record["id"], "waiting")


async def test_a_route_without_background_tasks_records_nothing_and_is_not_touched() -> None:
    app = FastAPI()
    Segundo(app)

    @app.get("/")
    async def endpoint() -> str:
        return "ok"

    async with running(app) as client:
        assert (await client.get("/")).json() == "ok"
    assert records() == []
