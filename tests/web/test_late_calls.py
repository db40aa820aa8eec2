"""Calls added when a request's own moment has passed: while a body streams, at an exit, on a WebSocket."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from starlette.types import Message

from segundo import BackgroundTasks, Segundo
from tests.support import wait_until_async
from tests.web.apps import LEDGER, ended, messages, running, served_client, states
from tests.web.tasks import declared, events, note


async def test_calls_added_while_an_async_body_streams_are_recorded_at_once_and_run_after_the_request() -> (
    None
):
    app = FastAPI()
    Segundo(app)

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> StreamingResponse:
        async def body() -> AsyncGenerator[str]:
            for number in range(3):
                tasks.add_task(note, f"task {number}")
                await tasks.flush()
                note(f"chunk {number}, {states()}")
                yield str(number)

        return StreamingResponse(body())

    async with served_client(app) as client:
        assert (await client.get("/")).text == "012"
        await ended(3)
    assert events() == [
        "chunk 0, ['waiting']",
        "chunk 1, ['waiting', 'waiting']",
        "chunk 2, ['waiting', 'waiting', 'waiting']",
        "task 0",
        "task 1",
        "task 2",
    ]


async def test_every_call_that_a_def_body_adds_in_its_thread_is_recorded_and_run() -> None:
    app = FastAPI()
    Segundo(app)

    @app.get("/")
    def endpoint(tasks: BackgroundTasks) -> StreamingResponse:
        def body() -> Iterator[str]:
            for number in range(10):
                for part in range(20):
                    tasks.add_task(declared, f"{number}.{part}")
                yield str(number)

        return StreamingResponse(body())

    async with served_client(app) as client:
        assert (await client.get("/")).text == "0123456789"
        await ended(200)
    assert len(set(events())) == 200


@pytest.mark.parametrize("scope", ["request", "function"])
@pytest.mark.parametrize("kind", ["def", "async"])
async def test_a_call_added_in_a_yield_dependencys_exit_is_recorded_and_run(scope: Any, kind: str) -> None:
    app = FastAPI()
    Segundo(app)

    def exits(tasks: BackgroundTasks) -> Generator[None]:
        yield
        tasks.add_task(note, "added at the exit")

    async def exits_async(tasks: BackgroundTasks) -> AsyncGenerator[None]:
        yield
        tasks.add_task(note, "added at the exit")

    @app.post("/", dependencies=[Depends(exits if kind == "def" else exits_async, scope=scope)])
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "added in the endpoint")

    async with running(app) as client:
        assert (await client.post("/")).status_code == 200
        await ended(2)
    assert events() == ["added in the endpoint", "added at the exit"]


async def test_a_call_in_process_that_a_yield_dependencys_exit_adds_runs_too() -> None:
    app = FastAPI()
    Segundo(app)

    def exits(tasks: BackgroundTasks) -> Generator[None]:
        yield
        tasks.add_task(lambda: note("in process"))

    @app.post("/", dependencies=[Depends(exits)])
    async def endpoint() -> None: ...

    async with running(app) as client:
        await client.post("/")
        await wait_until_async(events)
    assert events() == ["in process"]


async def test_calls_added_in_a_yield_dependencys_error_handling_are_dropped_with_the_request() -> None:
    app = FastAPI()
    Segundo(app)

    def handles(tasks: BackgroundTasks) -> Generator[None]:
        try:
            yield
        except RuntimeError:
            tasks.add_task(note, "never")
            tasks.add_task(lambda: note("never"))
            raise

    @app.post("/", dependencies=[Depends(handles)])
    async def endpoint() -> None:
        raise RuntimeError

    async with running(app, raise_app_exceptions=False) as client:
        assert (await client.post("/")).status_code == 500
        assert (states(), events()) == ([], [])


async def test_a_call_added_after_the_request_is_recorded_and_run_at_once() -> None:
    app = FastAPI()
    Segundo(app)
    kept: list[BackgroundTasks] = []

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        kept.append(tasks)

    async with running(app) as client:
        await client.post("/")
        kept[0].add_task(note, "late")
        await ended(1)
        kept[0].add_task(lambda: note("late, in process"))
        await wait_until_async(lambda: len(events()) == 2)
    assert events() == ["late", "late, in process"]


async def test_a_late_call_that_cannot_be_recorded_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    Segundo(app)

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> StreamingResponse:
        async def body() -> AsyncGenerator[str]:
            yield "o"
            LEDGER.unlink()
            tasks.add_task(note, "lost")
            yield "k"

        return StreamingResponse(body())

    async with running(app) as client:
        assert (await client.get("/")).text == "ok"
        await wait_until_async(lambda: "could not be recorded, and are lost" in caplog.text)
    assert events() == []


# WebSockets: there is no answer to record before, so each call is recorded and released as it comes


class Socket:
    """A client of a WebSocket endpoint, which is called directly, so that what it raises can be seen."""

    def __init__(self, app: FastAPI) -> None:
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "path": "/",
            "raw_path": b"/",
            "root_path": "",
            "query_string": b"",
            "headers": [],
            "subprotocols": [],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        self.over = asyncio.ensure_future(app(scope, self._to_app.get, self._from_app.put))
        self._to_app.put_nowait({"type": "websocket.connect"})

    async def accepted(self) -> None:
        assert (await self._from_app.get())["type"] == "websocket.accept"

    def send(self, text: str) -> None:
        self._to_app.put_nowait({"type": "websocket.receive", "text": text})

    def disconnect(self) -> None:
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": 1006})


def websocket_app(endpoint: Callable[..., Any]) -> FastAPI:
    app = FastAPI()
    Segundo(app)
    app.websocket("/")(endpoint)
    return app


@asynccontextmanager
async def connected(endpoint: Callable[..., Any]) -> AsyncGenerator[Socket]:
    """A client of this endpoint, from its acceptance until it leaves and the endpoint has ended."""
    app = websocket_app(endpoint)
    async with running(app):
        socket = Socket(app)
        await socket.accepted()
        yield socket
        socket.disconnect()
        await socket.over


async def test_a_websockets_calls_are_recorded_and_run_while_the_socket_is_open() -> None:
    async def endpoint(socket: WebSocket, tasks: BackgroundTasks) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            tasks.add_task(note, text)

    async with connected(endpoint) as socket:
        for number in range(3):
            socket.send(f"message {number}")
            await ended(number + 1)
        assert not socket.over.done()
    assert events() == ["message 0", "message 1", "message 2"]


async def adds_and_closes(socket: WebSocket, tasks: BackgroundTasks) -> None:
    await socket.accept()
    tasks.add_task(note, "added")
    await socket.close()


async def adds_and_loses_the_client(socket: WebSocket, tasks: BackgroundTasks) -> None:
    await socket.accept()
    try:
        await socket.receive_text()
    except WebSocketDisconnect:
        tasks.add_task(note, "added")
        raise


async def adds_and_fails(socket: WebSocket, tasks: BackgroundTasks) -> None:
    await socket.accept()
    tasks.add_task(note, "added")
    raise RuntimeError("the endpoint failed")


async def adds_at_the_exit(tasks: BackgroundTasks) -> AsyncGenerator[None]:
    yield
    tasks.add_task(note, "added")


async def only_depends(socket: WebSocket, _: Annotated[None, Depends(adds_at_the_exit)]) -> None:
    await socket.accept()
    await socket.close()


@pytest.mark.parametrize(
    "endpoint", [adds_and_closes, adds_and_loses_the_client, adds_and_fails, only_depends]
)
async def test_a_websockets_calls_are_kept_however_the_socket_ends(endpoint: Callable[..., Any]) -> None:
    app = websocket_app(endpoint)
    async with running(app):
        socket = Socket(app)
        await socket.accepted()
        socket.disconnect()
        await asyncio.wait([socket.over])
        socket.over.exception()
        await ended(1)
    assert events() == ["added"]


async def test_a_late_call_behind_no_record_is_lost_alone_and_that_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def endpoint(socket: WebSocket, tasks: BackgroundTasks) -> None:
        await socket.accept()
        tasks.add_task(declared, "before")
        tasks.add_task(declared.options(after="no-such-record"), "never")
        tasks.add_task(declared, "behind")
        await socket.receive()

    async with connected(endpoint):
        await ended(2)
    assert sorted(events()) == ["before", "behind"]
    (line,) = messages(caplog, "ERROR")
    assert "no-such-record" in line


async def test_a_slow_call_in_process_on_a_websocket_delays_no_recording() -> None:
    gate = asyncio.Event()

    async def endpoint(socket: WebSocket, tasks: BackgroundTasks) -> None:
        async def waits() -> None:
            note("waiting")
            await gate.wait()
            note("went on")

        await socket.accept()
        tasks.add_task(waits)
        await wait_until_async(events)
        tasks.add_task(note, "recorded")
        await socket.receive()

    async with connected(endpoint):
        await ended(1)
        gate.set()
        await wait_until_async(lambda: len(events()) == 3)
    assert events() == ["waiting", "recorded", "went on"]


async def test_flush_in_the_endpoint_is_refused_because_a_request_is_recorded_whole_or_not_at_all() -> None:
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "task")
        with pytest.raises(RuntimeError, match="when its endpoint has returned"):
            await tasks.flush()

    async with running(app) as client:
        assert (await client.post("/")).status_code == 200
        await ended(1)
    assert events() == ["task"]


async def test_flush_waits_also_for_what_the_loop_has_begun_to_record() -> None:
    app = FastAPI()
    Segundo(app)

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> StreamingResponse:
        async def body() -> AsyncGenerator[str]:
            handle = tasks.add_task(note, "task")
            await asyncio.sleep(0)  # the loop turns, and begins to record
            await asyncio.sleep(0)
            await tasks.flush()
            yield str(handle.recorded)

        return StreamingResponse(body())

    async with running(app) as client:
        assert (await client.get("/")).text == "True"
