"""What happens on real connections, with real middleware, and on servers that behave otherwise."""

import gzip
import socket
from collections.abc import AsyncGenerator
from contextlib import closing
from functools import partial
from typing import Any

import anyio
import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.background import BackgroundTask
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.types import Message

from segundo import Segundo
from tests.support import wait_until_async
from tests.web.apps import ended, lifespan, served, served_client
from tests.web.tasks import events, fail, fail_async, note


def failing_app() -> FastAPI:
    app = FastAPI()
    Segundo(app)

    @app.post("/fail")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(fail, "recorded def")
        tasks.add_task(fail_async, "recorded async")
        tasks.add_task(lambda: fail("in process"))

    @app.get("/")
    async def other() -> str:
        return "answered"

    return app


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_a_failing_task_does_not_close_its_clients_connection(http: str) -> None:
    async with served(failing_app(), http=http) as url:
        answers = await anyio.to_thread.run_sync(two_requests_on_one_connection, int(url.rpartition(":")[2]))
        await ended(2)
    assert [answer.splitlines()[0] for answer in answers] == ["HTTP/1.1 200 OK", "HTTP/1.1 200 OK"]
    assert answers[1].endswith('"answered"')
    assert events()[0] == "in process"


def two_requests_on_one_connection(port: int) -> list[str]:
    """A request whose tasks fail, and a second one only after the first of them has."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        connection.sendall(b"POST /fail HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n")
        first = one_answer(connection)
        while "in process" not in events():
            pass
        connection.sendall(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
        return [first, one_answer(connection)]


def one_answer(connection: socket.socket) -> str:
    received = b""
    while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < length_of(received):
        chunk = connection.recv(65536)
        assert chunk, f"the server closed the connection after {received!r}"
        received += chunk
    return received.decode()


def length_of(received: bytes) -> int:
    (line,) = [line for line in received.splitlines() if line.lower().startswith(b"content-length:")]
    return int(line.partition(b":")[2])


async def test_tasks_run_when_the_client_leaves_in_the_middle_of_a_stream() -> None:
    app = FastAPI()
    Segundo(app)

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> StreamingResponse:
        tasks.add_task(note, "recorded")

        async def body() -> AsyncGenerator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
                    await anyio.lowlevel.checkpoint()
            finally:
                note("the stream was cut off")

        return StreamingResponse(body())

    async with served_client(app) as client:
        async with client.stream("GET", "/") as answer:
            assert answer.status_code == 200
            assert len(await anext(answer.aiter_raw(65536))) == 65536
        await ended(1)
    assert sorted(events()) == ["recorded", "the stream was cut off"]


@pytest.mark.parametrize("streaming", [False, True], ids=["plain", "stream"])
async def test_tasks_run_on_a_server_that_raises_when_the_client_has_gone(streaming: bool) -> None:
    app = FastAPI()
    Segundo(app)

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> Response:
        tasks.add_task(note, "recorded")
        return StreamingResponse(iter([b"a", b"b"])) if streaming else Response(b"ab")

    async def gone(message: Message) -> None:
        raise OSError("the client has gone")

    async with lifespan(app):
        with pytest.raises(Exception):  # noqa: B017  (Starlette's ClientDisconnect, or the OSError)
            await app(http_scope(), receives_a_disconnect(), gone)
        await ended(1)
    assert events() == ["recorded"]


def http_scope() -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "scheme": "http",
    }


def receives_a_disconnect() -> Any:
    messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        return next(messages, {"type": "http.disconnect"})

    return receive


# Middleware


async def test_a_compressed_answer_is_followed_by_its_tasks() -> None:
    app = FastAPI()
    Segundo(app)
    app.add_middleware(GZipMiddleware, minimum_size=10)

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> str:
        tasks.add_task(note, "recorded")
        return "x" * 1000

    async with served_client(app) as client, client.stream("GET", "/") as answer:
        raw = b"".join([chunk async for chunk in answer.aiter_raw()])
        assert gzip.decompress(raw) == b'"' + b"x" * 1000 + b'"'
        await ended(1)
    assert events() == ["recorded"]


# The endpoint's own background


async def test_the_tasks_behind_an_own_response_with_its_own_background_are_not_lost() -> None:
    app = FastAPI()
    Segundo(app)

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> Response:
        tasks.add_task(note, "recorded")
        tasks.add_task(lambda: note("in process"))
        return JSONResponse("ok", background=BackgroundTask(note, "the response's own"))

    async with served_client(app) as client:
        assert (await client.get("/")).json() == "ok"
        (record,) = await ended(1)
    assert events() == ["the response's own", "in process", "recorded"]
    assert record["arguments"] == '{"event":"recorded"}'


async def test_an_own_response_that_is_given_the_injected_object_runs_each_call_once() -> None:
    app = FastAPI()
    Segundo(app)

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> Response:
        tasks.add_task(note, "recorded")
        tasks.add_task(lambda: note("in process"))
        return JSONResponse("ok", background=tasks)

    async with served_client(app) as client:
        await client.get("/")
        await ended(1)
    assert events() == ["in process", "recorded"]


async def test_an_idle_recorded_task_holds_neither_its_request_nor_its_place_in_the_servers_limit() -> None:
    app = FastAPI()
    Segundo(app)
    gates.clear()

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(waits_for_the_gate)

    async with served_client(app, limit_concurrency=4) as client:
        for _ in range(10):
            assert (await client.post("/")).status_code == 200
        await wait_until_async(lambda: len(gates) == 10)
        for gate in gates:
            gate.set()
        await ended(10)


gates: list[anyio.Event] = []


def waiting(count: int) -> bool:
    return len(gates) == count


async def waits_for_the_gate() -> None:
    gate = anyio.Event()
    gates.append(gate)
    await gate.wait()


async def test_the_answer_does_not_wait_for_a_recorded_task() -> None:
    app = FastAPI()
    Segundo(app)
    gates.clear()

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(waits_for_the_gate)

    async with served(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        for number in range(3):  # each on a connection whose last request has a task that still runs
            assert (await client.post("/", timeout=10)).status_code == 200
            await wait_until_async(partial(waiting, number + 1))
        for gate in gates:
            gate.set()
        await ended(3)
