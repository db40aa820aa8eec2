"""Middleware above the request: it answers itself, fails, compresses, stacks up, stands on either side."""

import asyncio
import gzip
import inspect
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import segundo
from segundo import Segundo
from tests.web.apps import ended, records, running, served_client
from tests.web.tasks import events, note

Dispatch = Callable[[Request, RequestResponseEndpoint], Any]


def app_within(*middleware: tuple[Any, dict[str, Any]], segundo_first: bool = True) -> FastAPI:
    """An app below these, the last one outermost."""
    app = FastAPI()
    if segundo_first:
        Segundo(app)
    for kind, options in middleware:
        app.add_middleware(kind, **options)
    if not segundo_first:
        Segundo(app)

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> str:
        tasks.add_task(note, "recorded")
        tasks.add_task(lambda: note("in process"))
        return "x" * 1000

    @app.get("/stream")
    async def stream(tasks: BackgroundTasks) -> StreamingResponse:
        tasks.add_task(note, "recorded")

        async def body() -> AsyncGenerator[bytes]:
            for _ in range(3):
                yield b"x" * 1000

        return StreamingResponse(body())

    return app


async def passes_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


async def answers_itself(request: Request, call_next: RequestResponseEndpoint) -> Response:
    await call_next(request)
    return Response("other", 202)


async def answers_with_a_task_of_its_own(request: Request, call_next: RequestResponseEndpoint) -> Response:
    await call_next(request)
    return Response("other", 202, background=BackgroundTask(note, "the middleware's"))


async def fails_afterwards(request: Request, call_next: RequestResponseEndpoint) -> Response:
    await call_next(request)
    raise RuntimeError("the middleware failed")


async def reads_it_whole(request: Request, call_next: RequestResponseEndpoint) -> Response:
    answer: Any = await call_next(request)
    body = b"".join([chunk async for chunk in answer.body_iterator])
    return Response(body, answer.status_code)


def base(dispatch: Dispatch) -> tuple[Any, dict[str, Any]]:
    return BaseHTTPMiddleware, {"dispatch": dispatch}


STACKS = [
    pytest.param([passes_on], 200, id="one passes on"),
    pytest.param([answers_itself], 202, id="answers itself"),
    pytest.param([fails_afterwards], 500, id="fails afterwards"),
    pytest.param([passes_on] * 3, 200, id="three pass on"),
    pytest.param([passes_on, answers_itself, passes_on], 202, id="one of three answers itself"),
    pytest.param([answers_with_a_task_of_its_own], 202, id="answers with a task of its own"),
    pytest.param([reads_it_whole, passes_on], 200, id="one reads the body and answers with it"),
    pytest.param([passes_on, fails_afterwards, passes_on], 500, id="one of three fails"),
    pytest.param([fails_afterwards, answers_itself], 500, id="fails below one that answers itself"),
]


@pytest.mark.parametrize("path", ["/", "/stream"])
@pytest.mark.parametrize("segundo_first", [True, False], ids=["Segundo first", "middleware first"])
@pytest.mark.parametrize(("stack", "status"), STACKS)
async def test_what_was_recorded_runs_once_below_base_http_middleware_of_which(
    stack: list[Dispatch], status: int, segundo_first: bool, path: str
) -> None:
    app = app_within(*map(base, stack), segundo_first=segundo_first)
    async with served_client(app) as client:
        assert (await client.get(path)).status_code == status
        await ended(1)
    assert events().count("recorded") == 1
    assert len(events()) == len(set(events()))


async def test_nothing_runs_below_a_middleware_that_never_passes_the_request_on() -> None:
    async def refuses(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return Response(status_code=401)

    async with served_client(app_within(base(refuses))) as client:
        assert (await client.get("/")).status_code == 401
    assert events() == []


async def test_a_middleware_that_raises_before_it_passes_the_request_on_leaves_nothing() -> None:
    async def raises(request: Request, call_next: RequestResponseEndpoint) -> Response:
        raise RuntimeError

    async with served_client(app_within(base(raises))) as client:
        assert (await client.get("/")).status_code == 500
    assert (records(), events()) == ([], [])


@pytest.mark.parametrize("segundo_first", [True, False], ids=["Segundo first", "middleware first"])
async def test_compression_and_cors_above_and_below_change_nothing(segundo_first: bool) -> None:
    app = app_within(
        (GZipMiddleware, {"minimum_size": 10}),
        (CORSMiddleware, {"allow_origins": ["*"]}),
        base(passes_on),
        segundo_first=segundo_first,
    )
    headers = {"origin": "https://example.com"}
    async with served_client(app) as client:
        for number, path in enumerate(["/", "/stream"]):
            async with client.stream("GET", path, headers=headers) as answer:
                assert answer.headers["access-control-allow-origin"] == "*"
                raw = b"".join([chunk async for chunk in answer.aiter_raw()])
                assert b"x" * 1000 in gzip.decompress(raw)
            await ended(1 + number)
        asked = {**headers, "access-control-request-method": "GET"}
        assert (await client.options("/", headers=asked)).status_code == 200
    assert sorted(events()) == ["in process", "recorded", "recorded"]


@pytest.mark.parametrize("segundo_first", [True, False], ids=["Segundo first", "middleware first"])
async def test_a_session_cookie_that_the_endpoint_sets_goes_out_and_its_calls_run(
    segundo_first: bool,
) -> None:
    sessions = pytest.importorskip("starlette.middleware.sessions")
    app = app_within((sessions.SessionMiddleware, {"secret_key": "s"}), segundo_first=segundo_first)

    @app.post("/login")
    async def login(request: Request, tasks: BackgroundTasks) -> None:
        request.session["name"] = "ada"
        tasks.add_task(note, "recorded")
        tasks.add_task(lambda: note(f"in process sees {request.session['name']}"))

    async with served_client(app) as client:
        assert "session=" in (await client.post("/login")).headers["set-cookie"]
        await ended(1)
    assert events() == ["in process sees ada", "recorded"]


# Middleware that changes how the request goes on


class InATaskOfItsOwn:
    """Runs the app in a task of its own, as some middleware does to set a time limit."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.ensure_future(self.app(dict(scope), receive, send))


class CutsOffAfterTheAnswer:
    """Cancels the app once its answer is out, as a time limit does that the tasks of FastAPI exceed."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def cancelling(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                running.cancel()

        running = asyncio.ensure_future(self.app(scope, receive, cancelling))
        await asyncio.wait([running])


async def test_a_middleware_that_runs_the_app_in_a_task_and_copies_the_scope_changes_nothing() -> None:
    async with served_client(app_within((InATaskOfItsOwn, {}))) as client:
        assert (await client.get("/")).status_code == 200
        await ended(1)
    assert events() == ["in process", "recorded"]


async def test_what_was_recorded_runs_though_a_middleware_cancels_the_request_after_its_answer() -> None:
    async with served_client(app_within((CutsOffAfterTheAnswer, {}))) as client:
        assert (await client.get("/")).status_code == 200
        await ended(1)
    assert "recorded" in events()  # and what was in process may have been cut off


# Tools that put themselves into the stack of middleware, which Starlette builds at the first request


class Tool:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            note("the tool")
        await self.app(scope, receive, send)


def put_within_the_outermost(stack: Any) -> Any:
    """As OpenTelemetry does, which knows Starlette's stack by its outermost class."""
    assert type(stack) is ServerErrorMiddleware
    return ServerErrorMiddleware(Tool(stack.app), stack.handler, stack.debug)


@pytest.mark.parametrize("put", [Tool, put_within_the_outermost])
@pytest.mark.parametrize("segundo_first", [True, False])
async def test_a_tool_finds_starlettes_own_stack_and_answers_of_handlers_keep_their_calls(
    put: Callable[[Any], Any], segundo_first: bool
) -> None:
    app = FastAPI()
    if segundo_first:
        Segundo(app)
    build = app.build_middleware_stack
    setattr(app, "build_middleware_stack", lambda: put(build()))  # noqa: B010  # a method, to type checkers
    if not segundo_first:
        Segundo(app)

    @app.exception_handler(Exception)
    async def handler(request: Request, error: Exception) -> Response:
        tasks = segundo.BackgroundTasks(request)
        tasks.add_task(note, "of the handler")
        return await tasks.recorded(Response("sorry", 500))

    @app.get("/")
    async def broken(request: Request) -> Response:
        tasks = segundo.BackgroundTasks(request)
        tasks.add_task(note, "taken back")
        await tasks.recorded(Response())
        raise RuntimeError

    async with running(app, raise_app_exceptions=False) as client:
        assert (await client.get("/")).text == "sorry"
        await ended(1)
    assert events() == ["the tool", "of the handler"]


class Shop(FastAPI):
    """An app of the user's own class."""


@pytest.mark.parametrize("kind", [Starlette, FastAPI, Shop])
def test_an_app_stays_of_its_class_by_name_and_for_servers(kind: type[Starlette]) -> None:
    app = kind()
    Segundo(app)
    assert isinstance(app, kind)
    assert repr(type(app)) == repr(kind)
    assert inspect.iscoroutinefunction(app.__call__)  # by this, uvicorn knows an ASGI app


async def test_a_tool_that_wraps_the_class_of_apps_later_sees_their_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = Starlette()
    Segundo(app)
    original = Starlette.__call__

    async def traced(self: Starlette, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            note("the tool")
        await original(self, scope, receive, send)

    monkeypatch.setattr(Starlette, "__call__", traced)
    async with running(app) as client:
        assert (await client.get("/")).status_code == 404
    assert events() == ["the tool"]
