"""Where Segundo hangs on to FastAPI: what it needs there, what others see of it, and what it leaves alone."""

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator
from typing import Any

import fastapi.routing
import pytest
import websockets
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.dependencies.utils import solve_dependencies
from fastapi.testclient import TestClient

from segundo import Segundo
from tests.support import wait_until_async
from tests.web.apps import ended, running, served, served_client, states
from tests.web.tasks import events, note


def test_fastapis_function_is_wrapped_once_however_many_apps_there_are() -> None:
    for _ in range(3):
        Segundo(FastAPI())
    routing: Any = fastapi.routing
    assert routing.solve_dependencies.__wrapped__ is solve_dependencies


def test_an_app_that_is_gone_is_not_kept() -> None:
    apps = [weakref.ref(used_app()) for _ in range(5)]
    gc.collect()
    assert [app() for app in apps] == [None] * 5


def used_app() -> FastAPI:
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "task")

    with TestClient(app) as client:
        client.post("/")
    return app


async def test_server_sent_events_may_add_tasks_which_run_after_the_last() -> None:
    sse = pytest.importorskip("fastapi.sse", reason="this FastAPI has no server-sent events")
    app = FastAPI()
    Segundo(app)

    @app.get("/", response_class=sse.EventSourceResponse)
    async def endpoint(tasks: BackgroundTasks) -> AsyncGenerator[int]:
        for number in range(3):
            tasks.add_task(note, f"task {number}")
            await wait_until_async(lambda: len(states()) > number)  # noqa: B023  (awaited in this turn)
            assert set(states()) == {"waiting"}
            yield number

    async with served_client(app) as client:
        assert (await client.get("/")).text.count("data:") == 3
        await ended(3)
    assert events() == ["task 0", "task 1", "task 2"]


async def test_a_websocket_over_a_real_connection_that_breaks_keeps_its_calls() -> None:
    app = FastAPI()
    Segundo(app)

    @app.websocket("/")
    async def endpoint(socket: WebSocket, tasks: BackgroundTasks) -> None:
        await socket.accept()
        tasks.add_task(note, "opened")
        try:
            tasks.add_task(note, await socket.receive_text())
            await socket.receive_text()
        finally:
            tasks.add_task(note, "closed")

    async with served(app) as url:
        connection = await websockets.connect(url.replace("http", "ws"), proxy=None)
        await connection.send("received")
        await ended(2)
        connection.transport.abort()
        await ended(3)
        await connection.wait_closed()
    assert events() == ["opened", "received", "closed"]


async def test_a_request_that_the_server_cancels_at_its_stop_still_releases_what_it_recorded() -> None:
    app = FastAPI()
    Segundo(app)
    hangs = asyncio.Event()

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "recorded")
        tasks.add_task(hangs.wait)

    async with served_client(app, timeout_graceful_shutdown=0) as client:
        assert (await client.post("/")).status_code == 200
        assert states() == ["waiting"]
    async with running(app):
        await ended(1)
    assert events() == ["recorded"]


async def test_the_spans_of_fastapi_know_the_function_that_runs_in_process() -> None:
    pytest.importorskip("fastapi.telemetry", reason="this FastAPI has no spans of its own")
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = memory.InMemorySpanExporter()
    provider = trace.TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    app = FastAPI(telemetry={"tracer_provider": provider})  # type: ignore[call-arg]  # not in the oldest
    Segundo(app)

    def nested() -> None:
        note("def")

    async def nested_async() -> None:
        note("async")

    @app.post("/", dependencies=[Depends(lambda: None)])
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(nested)
        tasks.add_task(nested_async)
        tasks.add_task(note, "recorded")

    async with running(app) as client:
        await client.post("/")
        await ended(1)
    spans = [span for span in exporter.get_finished_spans() if span.name == "fastapi.background_task"]
    assert [span.attributes["code.function.name"].rpartition(".")[2] for span in spans] == [
        "nested",
        "nested_async",
    ]
