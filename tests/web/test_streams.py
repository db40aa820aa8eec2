"""Bodies of every kind: generators that are the endpoint, JSON lines, event streams, files, frontends."""

import importlib
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import anyio
import fastapi
import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI
from fastapi.responses import FileResponse, StreamingResponse

import segundo
from segundo import Segundo
from tests.support import wait_until_async
from tests.web.apps import LEDGER, Watched, ended, served, served_client, states
from tests.web.tasks import events, note


def streaming_app(endpoint: Callable[..., Any], **route: Any) -> FastAPI:
    app = FastAPI()
    Segundo(app)
    app.get("/", **route)(endpoint)
    return app


# Endpoints that are generators


async def lines(tasks: segundo.BackgroundTasks) -> AsyncGenerator[dict[str, int]]:
    for number in range(2):
        tasks.add_task(note, f"task {number}")
        await tasks.flush()
        note(f"item {number}, {states()}")
        yield {"number": number}


def lines_in_a_thread(tasks: BackgroundTasks) -> Iterator[dict[str, int]]:
    for number in range(2):
        tasks.add_task(note, f"task {number}")
        yield {"number": number}


def newest(feature: str) -> Any:
    """What only newer FastAPIs have; in CI the newest one is installed too."""
    try:
        module, _, name = feature.rpartition(".")
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        pytest.skip(f"FastAPI {fastapi.__version__} has no {feature}")


@pytest.fixture
def json_lines() -> None:
    newest("fastapi.sse.EventSourceResponse")  # JSON lines came with it


@pytest.mark.usefixtures("json_lines")
async def test_calls_added_between_json_lines_are_recorded_as_they_come_and_run_after_the_last() -> None:
    async with served_client(streaming_app(lines)) as client:
        answer = await client.get("/")
        assert (answer.headers["content-type"], len(answer.text.splitlines())) == ("application/jsonl", 2)
        await ended(2)
    assert events() == ["item 0, ['waiting']", "item 1, ['waiting', 'waiting']", "task 0", "task 1"]


@pytest.mark.usefixtures("json_lines")
async def test_calls_added_between_json_lines_of_a_def_generator_run_after_the_last() -> None:
    async with served_client(streaming_app(lines_in_a_thread)) as client:
        assert len((await client.get("/")).text.splitlines()) == 2
        await ended(2)
    assert events() == ["task 0", "task 1"]


@pytest.mark.parametrize("endpoint", [lines, lines_in_a_thread])
async def test_calls_of_an_event_stream_are_recorded_and_run_when_it_has_ended(endpoint: Any) -> None:
    app = streaming_app(endpoint, response_class=newest("fastapi.sse.EventSourceResponse"))
    async with served_client(app) as client:
        answer = await client.get("/")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text.count("data: ") == 2
        await ended(2)
    assert [event for event in events() if event.startswith("task")] == ["task 0", "task 1"]


@pytest.mark.parametrize("flushes", [False, True], ids=["add_task", "flush"])
@pytest.mark.parametrize("slow", ["recording", "an exit before it"])
async def test_a_call_added_while_its_request_is_being_recorded_is_recorded_next(
    slow: str, flushes: bool
) -> None:
    app = FastAPI()
    Segundo(app)
    begun, over = anyio.Event(), anyio.Event()

    async def exits_slowly(tasks: BackgroundTasks) -> AsyncGenerator[None]:
        tasks.add_task(note, "dependency")
        yield
        if slow != "recording":
            await begun.wait()

    async def stream(tasks: segundo.BackgroundTasks) -> AsyncGenerator[str]:
        begun.set()  # before the response begins: FastAPI has started the stream, and now records
        tasks.add_task(note, "stream")
        note(f"the stream begins, {states()}")
        if flushes:
            await tasks.flush()
            note(f"flushed, {states()}")
        yield "begun"
        await over.wait()

    sse = newest("fastapi.sse.EventSourceResponse")
    dependency = Depends(exits_slowly, scope="function")
    app.get("/", response_class=sse, dependencies=[dependency])(stream)
    async with served(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        async with client.stream("GET", "/") as answer:
            received = answer.aiter_text()
            assert "begun" in await anext(received)
            await wait_until_async(lambda: states() == ["waiting", "waiting"])
            over.set()
            async for _ in received:
                pass
        await ended(2)
    assert events()[-2:] == ["dependency", "stream"]
    assert events()[0] == "the stream begins, []"
    assert events()[1:-2] == (["flushed, ['waiting', 'waiting']"] if flushes else [])


@pytest.mark.parametrize("kind", ["StreamingResponse", "a generator endpoint"])
async def test_a_stream_that_breaks_off_has_answered_so_its_calls_run(kind: str) -> None:
    async def body(tasks: BackgroundTasks) -> AsyncGenerator[bytes]:
        yield b"begun"
        tasks.add_task(note, "added in the stream")
        raise RuntimeError("the stream broke off")

    async def endpoint(tasks: BackgroundTasks) -> StreamingResponse:
        tasks.add_task(note, "added before")
        return StreamingResponse(body(tasks))

    if kind == "StreamingResponse":
        app = streaming_app(endpoint)
    else:
        newest("fastapi.sse.EventSourceResponse")
        app = streaming_app(body, response_class=StreamingResponse)
    async with served_client(app) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/")
        await ended(2 if kind == "StreamingResponse" else 1)
    assert events()[-1] == "added in the stream"


# Files, and requests that want no body


async def sends_a_file(tasks: BackgroundTasks) -> FileResponse:
    tasks.add_task(note, "task")
    return FileResponse(__file__)


async def test_a_files_calls_are_recorded_before_its_first_byte_and_released_after_its_last() -> None:
    seen: dict[str, list[str]] = {}
    watched = Watched(streaming_app(sends_a_file), lambda moment: seen.update({moment: states()}))
    async with served_client(watched) as client:
        assert (await client.get("/")).text.startswith('"""Bodies of every kind')
        await ended(1)
    assert (seen["first byte"], seen["last byte"]) == (["waiting"], ["waiting"])


async def test_calls_run_for_a_part_of_a_file_and_for_one_that_turns_out_to_be_missing() -> None:
    app = streaming_app(sends_a_file)

    @app.get("/missing")
    async def missing(tasks: BackgroundTasks) -> FileResponse:
        tasks.add_task(note, "the file is missing")
        return FileResponse("missing")

    async with served_client(app) as client:
        assert (await client.get("/", headers={"range": "bytes=0-9"})).status_code == 206
        await ended(1)
        assert (await client.get("/missing")).status_code == 500
        await ended(2)  # it fails while it is being sent, when the request has done its part
    assert events() == ["task", "the file is missing"]


async def test_head_and_options_requests_have_calls_as_any_other() -> None:
    app = FastAPI()
    Segundo(app)

    @app.api_route("/", methods=["HEAD", "OPTIONS", "DELETE"], status_code=204)
    async def endpoint(request: fastapi.Request, tasks: BackgroundTasks) -> None:
        tasks.add_task(note, request.method)

    async with served_client(app) as client:
        for number, method in enumerate(["HEAD", "OPTIONS", "DELETE"]):
            assert (await client.request(method, "/")).status_code == 204
            await ended(number + 1)
    assert events() == ["HEAD", "OPTIONS", "DELETE"]


# A frontend's files behind dependencies


def adds(tasks: BackgroundTasks) -> None:
    tasks.add_task(note, "recorded")
    tasks.add_task(lambda: note("in process"))


def added_at_exit(tasks: BackgroundTasks) -> Generator[None]:
    yield
    tasks.add_task(note, "added at the exit")


def frontend_app(*dependencies: Any) -> FastAPI:
    if not hasattr(FastAPI, "frontend"):
        pytest.skip(f"FastAPI {fastapi.__version__} has no app.frontend")
    Path("dist").mkdir()
    Path("dist/index.html").write_text("<p>hello")
    app = FastAPI(dependencies=[Depends(dependency) for dependency in dependencies])
    Segundo(app)
    any_app: Any = app
    any_app.frontend("/", directory="dist", fallback=None)
    return app


async def test_a_frontends_calls_are_recorded_before_its_first_byte_and_run_after_its_last() -> None:
    seen: dict[str, list[str]] = {}
    watched = Watched(frontend_app(adds), lambda moment: seen.update({moment: states()}))
    async with served_client(watched) as client:
        assert (await client.get("/index.html")).text == "<p>hello"
        await ended(1)
    assert (seen["first byte"], seen["last byte"]) == (["waiting"], ["waiting"])
    assert events() == ["in process", "recorded"]


async def test_a_frontends_file_that_does_not_exist_drops_its_requests_calls() -> None:
    async with served_client(frontend_app(adds)) as client:
        assert (await client.get("/missing.js")).status_code == 404
        assert (await client.get("/index.html")).status_code == 200
        await ended(1)
    assert events() == ["in process", "recorded"]


async def test_a_frontend_whose_calls_cannot_be_recorded_is_answered_503_and_sends_no_file() -> None:
    async with served_client(frontend_app(adds)) as client:
        LEDGER.unlink()
        answer = await client.get("/index.html")
    assert (answer.status_code, answer.json()) == (
        503,
        {"detail": "the work could not be recorded, try again"},
    )
    assert events() == []


async def test_a_call_that_a_frontends_dependency_adds_at_its_exit_runs_too() -> None:
    async with served_client(frontend_app(added_at_exit)) as client:
        assert (await client.get("/index.html")).status_code == 200
        await ended(1)
    assert events() == ["added at the exit"]


async def test_a_frontend_of_an_included_router_keeps_its_order_too() -> None:
    app = frontend_app()
    router: Any = APIRouter(prefix="/docs", dependencies=[Depends(adds)])
    router.frontend("/", directory="dist", fallback=None)
    app.include_router(router)
    seen: dict[str, list[str]] = {}
    watched = Watched(app, lambda moment: seen.update({moment: states()}))
    async with served_client(watched) as client:
        assert (await client.get("/docs/index.html")).text == "<p>hello"
        await ended(1)
    assert (seen["first byte"], seen["last byte"]) == (["waiting"], ["waiting"])
