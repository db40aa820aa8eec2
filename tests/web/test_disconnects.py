"""Clients that leave: on servers that say nothing of it, and on those whose `send` raises."""

from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any

import anyio
import fastapi
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocketException
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.types import Message

import segundo
from segundo import Segundo
from tests.web.apps import ended, lifespan, served_client
from tests.web.tasks import events, note
from tests.web.test_late_calls import Socket
from tests.web.test_middleware import passes_on
from tests.web.test_servers import http_scope, receives_a_disconnect
from tests.web.test_streams import newest


async def plain(tasks: BackgroundTasks) -> str:
    tasks.add_task(note, "recorded")
    return "x" * 100


async def own_response(tasks: BackgroundTasks) -> Response:
    tasks.add_task(note, "recorded")
    return JSONResponse("x" * 100, background=fastapi.BackgroundTasks())


async def stream(tasks: BackgroundTasks) -> StreamingResponse:
    tasks.add_task(note, "recorded")
    return StreamingResponse(iter([b"x" * 100] * 5))


async def file(tasks: BackgroundTasks) -> FileResponse:
    tasks.add_task(note, "recorded")
    return FileResponse(__file__)


def in_a_dependency(tasks: BackgroundTasks) -> None:
    tasks.add_task(note, "recorded")


async def event_stream() -> AsyncGenerator[str]:
    while True:
        yield "x"


BODIES = [plain, own_response, stream, file, event_stream]
MIDDLEWARE = {
    "no middleware": [],
    "BaseHTTPMiddleware": [(BaseHTTPMiddleware, {"dispatch": passes_on})],
    "GZip": [(GZipMiddleware, {"minimum_size": 10})],
    "both": [(GZipMiddleware, {"minimum_size": 10}), (BaseHTTPMiddleware, {"dispatch": passes_on})],
}


@pytest.mark.parametrize("middleware", MIDDLEWARE)
@pytest.mark.parametrize("sent", [0, 1], ids=["at the first byte", "behind the first"])
@pytest.mark.parametrize("body", BODIES)
async def test_what_was_recorded_runs_though_send_raises(
    body: Callable[..., Any], sent: int, middleware: str
) -> None:
    app = FastAPI()
    Segundo(app)
    if body is event_stream:
        sse = newest("fastapi.sse.EventSourceResponse")
        app.get("/", response_class=sse, dependencies=[Depends(in_a_dependency)])(body)
    else:
        app.get("/")(body)
    for kind, options in MIDDLEWARE[middleware]:
        app.add_middleware(kind, **options)
    messages: list[Message] = []

    async def goes(message: Message) -> None:
        if len(messages) == sent:
            raise OSError("the client has gone")
        messages.append(message)

    async with lifespan(app):
        with suppress(Exception):  # Starlette's ClientDisconnect, the OSError, a group, or it was swallowed
            await app({**http_scope(), "headers": [(b"accept-encoding", b"gzip")]}, waits_for_ever(), goes)
        await ended(1)
    assert events() == ["recorded"]


def waits_for_ever() -> Any:
    """A server that tells of the end of a client by `send` alone."""
    request = receives_a_disconnect()

    async def receive() -> Message:
        message: Message = await request()
        if message["type"] == "http.disconnect":
            await anyio.sleep_forever()
        return message

    return receive


@pytest.mark.parametrize("stacked", [0, 1, 3])
async def test_calls_run_below_base_http_middleware_when_a_client_leaves_in_the_middle(
    stacked: int,
) -> None:
    app = FastAPI()
    Segundo(app)
    for _ in range(stacked):
        app.add_middleware(BaseHTTPMiddleware, dispatch=passes_on)

    @app.get("/")
    async def endless(tasks: segundo.BackgroundTasks) -> StreamingResponse:
        tasks.add_task(note, "recorded")

        async def body() -> AsyncGenerator[bytes]:
            tasks.add_task(note, "added in the stream")
            while True:
                yield b"x" * 65536
                await anyio.lowlevel.checkpoint()

        return StreamingResponse(body())

    async with served_client(app) as client:
        async with client.stream("GET", "/") as answer:
            assert len(await anext(answer.aiter_raw(65536))) == 65536
        await ended(2)
    assert events() == ["recorded", "added in the stream"]


async def test_the_calls_of_a_websocket_that_was_never_accepted_are_kept() -> None:
    app = FastAPI()
    Segundo(app)

    @app.websocket("/")
    async def refuses(socket: fastapi.WebSocket, tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "somebody was refused")
        raise WebSocketException(1008)

    async with lifespan(app):
        await Socket(app).over
        await ended(1)
    assert events() == ["somebody was refused"]
