"""Starlette apps: `BackgroundTasks(request)`, whose calls the response carries and are recorded before."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Annotated, Any, cast

import fastapi
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask as StarletteBackgroundTask
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import Message
from starlette.websockets import WebSocket

from segundo import INJECTED, BackgroundTask, BackgroundTasks, Segundo, current, task
from segundo.errors import ConfigurationError
from tests.web.apps import LEDGER, Watched, calling, ended, lifespan, messages, records, running, states
from tests.web.tasks import declared, events, fail, note, note_async
from tests.web.test_servers import http_scope, receives_a_disconnect


def app_of(*endpoints: Any, **settings: Any) -> Starlette:
    """An app with each endpoint at its name, the first also at the root, and a Segundo."""
    routes = [Route(f"/{endpoint.__name__}", endpoint) for endpoint in endpoints]
    app = Starlette(routes=[Route("/", endpoints[0]), *routes])
    Segundo(app, **settings)
    return app


def adding(request: Request) -> BackgroundTasks:
    tasks = BackgroundTasks(request)
    tasks.add_task(note, "plain")
    tasks.add_task(declared, "task")
    tasks.add_task(lambda: note("in process"))
    return tasks


async def answers(request: Request) -> Response:
    tasks = adding(request)
    assert isinstance(tasks, fastapi.BackgroundTasks)
    return await tasks.recorded(JSONResponse({"ok": True}))


async def test_calls_are_recorded_before_the_first_byte_and_run_after_the_request() -> None:
    seen: list[Any] = []

    def look(moment: str) -> None:
        seen.append((moment, states(), events()))

    async with running(Watched(app_of(answers), look)) as client:
        assert (await client.get("/")).json() == {"ok": True}
        await ended(2)
    assert seen[0] == ("first byte", ["waiting", "waiting"], [])
    assert seen[1] == ("last byte", ["waiting", "waiting"], [])
    assert events()[0] == "in process"
    assert sorted(events()) == ["in process", "plain", "task"]


class Endpoint(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        return await adding(request).recorded(PlainTextResponse("ok"))


async def streams(request: Request) -> Response:
    return await adding(request).recorded(StreamingResponse(iter([b"o", b"k"])))


async def sends_a_file(request: Request) -> Response:
    return await adding(request).recorded(FileResponse(__file__))


async def redirects(request: Request) -> Response:
    return await adding(request).recorded(RedirectResponse("/elsewhere"))


async def says_html(request: Request) -> Response:
    return await adding(request).recorded(HTMLResponse("<p>ok</p>"))


@pytest.mark.parametrize("endpoint", [Endpoint, streams, sends_a_file, redirects, says_html])
async def test_every_class_of_response_carries_calls(endpoint: Any) -> None:
    async with running(app_of(endpoint)) as client:
        assert (await client.get("/")).status_code in (200, 307)
        await ended(2)
    assert sorted(events()) == ["in process", "plain", "task"]


async def test_a_response_stays_what_it_was_and_is_of_its_class() -> None:
    async def endpoint(request: Request) -> Response:
        response = HTMLResponse("ok")
        same = await adding(request).recorded(response)
        assert same is response
        assert type(same).__name__ == "HTMLResponse"
        assert isinstance(same, HTMLResponse)
        return same

    async with running(app_of(endpoint)) as client:
        assert (await client.get("/")).headers["content-type"] == "text/html; charset=utf-8"


async def test_an_own_background_runs_as_in_starlette_before_what_is_in_process() -> None:
    async def endpoint(request: Request) -> Response:
        background = BackgroundTask(note, "own")
        return await adding(request).recorded(JSONResponse(None, background=background))

    async with running(app_of(endpoint)) as client:
        await client.get("/")
        await ended(2)
    assert events()[:2] == ["own", "in process"]


async def test_an_own_background_that_fails_stops_none_of_the_calls() -> None:
    async def endpoint(request: Request) -> Response:
        background = BackgroundTask(fail, "own")
        return await adding(request).recorded(JSONResponse(None, background=background))

    async with running(app_of(endpoint), raise_app_exceptions=False) as client:
        assert (await client.get("/")).status_code == 200
        await ended(2)
    assert sorted(events()) == ["in process", "own", "plain", "task"]


# A request that fails


async def raises(request: Request) -> Response:
    await adding(request).recorded(JSONResponse(None))
    raise RuntimeError("after all")


async def raises_http_exception(request: Request) -> Response:
    await adding(request).recorded(JSONResponse(None))
    raise HTTPException(409)


async def answers_with_another(request: Request) -> Response:
    await adding(request).recorded(JSONResponse(None))
    return JSONResponse("another", 400)


async def sends_no_file(request: Request) -> Response:
    return await adding(request).recorded(FileResponse("there is none"))


async def raises_before(request: Request) -> Response:
    adding(request)
    raise RuntimeError("before")


FAILURES = [
    (raises, 500), (raises_http_exception, 409), (answers_with_another, 400), (sends_no_file, 500),
    (raises_before, 500),
]  # fmt: skip


@pytest.mark.parametrize(("endpoint", "status"), FAILURES)
async def test_nothing_of_a_request_runs_whose_recorded_response_is_not_sent(
    endpoint: Callable[..., Any], status: int
) -> None:
    seen: list[Any] = []
    app = app_of(endpoint, answers)
    async with running(Watched(app, lambda _: seen.append(states())), raise_app_exceptions=False) as client:
        assert (await client.get("/")).status_code == status
        assert seen[0] == []  # at the first byte of the other answer they are gone
        assert (await client.get("/answers")).status_code == 200
        await ended(2)
    assert sorted(events()) == ["in process", "plain", "task"]


async def forgets(request: Request) -> Response:
    adding(request)
    return JSONResponse("ok")


async def forgets_what_is_in_process(request: Request) -> Response:
    BackgroundTasks(request).add_task(lambda: note("in process"))
    return JSONResponse("ok")


async def adds_nothing(request: Request) -> Response:
    BackgroundTasks(request)
    return JSONResponse("ok")


async def answers_well_with_another(request: Request) -> Response:
    await adding(request).recorded(JSONResponse(None))
    return JSONResponse("ok")


DROPPED = [
    (forgets, 200, ["note, declared, adding.<locals>.<lambda>"]),
    (forgets_what_is_in_process, 200, ["forgets_what_is_in_process.<locals>.<lambda>"]),
    (answers_well_with_another, 200, ["note, declared"]),
    (adds_nothing, 200, []),
    (answers_with_another, 400, []),
    (raises_http_exception, 409, []),
    (raises_before, 500, []),
    (answers, 200, []),
]


@pytest.mark.parametrize(("endpoint", "status", "named"), DROPPED)
async def test_calls_that_no_answer_carries_are_dropped_with_a_warning_unless_the_request_failed(
    endpoint: Callable[..., Any], status: int, named: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with running(app_of(endpoint), raise_app_exceptions=False) as client:
        assert (await client.get("/")).status_code == status
    said = [said for said in messages(caplog) if "dropped" in said]
    assert len(said) == len(named)
    for line, names in zip(said, named, strict=True):
        assert "return await tasks.recorded(response)" in line
        assert names in line


async def test_a_ledger_that_cannot_record_is_a_503_that_the_apps_handlers_see() -> None:
    async def sorry(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"sorry": error.detail}, error.status_code, error.headers)

    app = app_of(answers, record_timeout=0.2)
    async with running(app) as client:
        with closing(sqlite3.connect(LEDGER, isolation_level=None)) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            answer = await client.get("/")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert (await client.get("/")).status_code == 200
        await ended(2)
    assert sorted(events()) == ["in process", "plain", "task"]


async def test_calls_that_were_refused_are_gone_whoever_records_again() -> None:
    async def endpoint(request: Request) -> Response:
        tasks = adding(request)
        with suppress(HTTPException):
            await tasks.recorded(JSONResponse(None))
        return await tasks.recorded(JSONResponse("once more"))

    async with running(app_of(endpoint)) as client:
        LEDGER.unlink()
        with pytest.raises(RuntimeError, match="were dropped"):
            await client.get("/")
    assert events() == []


# A client that leaves


@pytest.mark.parametrize("sent", [0, 1], ids=["at the first byte", "behind the first"])
@pytest.mark.parametrize("endpoint", [answers, streams, sends_a_file])
async def test_what_was_recorded_for_an_answer_that_began_runs_though_send_raises(
    endpoint: Callable[..., Any], sent: int
) -> None:
    app = app_of(endpoint)
    passed: list[Message] = []

    async def goes(message: Message) -> None:
        if len(passed) == sent:
            raise OSError("the client has gone")
        passed.append(message)

    async with lifespan(app):
        with suppress(Exception):
            await app(http_scope(), receives_a_disconnect(), goes)
        await ended(2)
    assert {"plain", "task"} <= set(events())


async def test_a_request_that_is_cancelled_in_the_middle_of_its_answer_releases_what_it_recorded() -> None:
    sending = asyncio.Event()

    async def hangs(message: Message) -> None:
        sending.set()
        await asyncio.Event().wait()

    app = app_of(answers)
    async with lifespan(app):
        request = asyncio.create_task(app(http_scope(), receives_a_disconnect(), hangs))
        await sending.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await ended(2)
    assert sorted(events()) == ["plain", "task"]


async def test_a_request_that_is_cancelled_between_recording_and_its_answer_leaves_nothing() -> None:
    recorded = asyncio.Event()

    async def endpoint(request: Request) -> Response:
        await adding(request).recorded(JSONResponse(None))
        recorded.set()
        await asyncio.Event().wait()
        raise AssertionError

    app = app_of(endpoint)
    async with lifespan(app):
        request = asyncio.create_task(app(http_scope(), receives_a_disconnect(), receives_nothing))
        await recorded.wait()
        assert states() == ["waiting", "waiting"]
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    assert (records(), events()) == ([], [])


async def receives_nothing(message: Message) -> None:
    raise AssertionError(f"{message} was sent")


# Around and beside


async def passes_on(request: Request, call_next: Any) -> Response:
    answer: Response = await call_next(request)
    return answer


async def adds_too(request: Request, call_next: Any) -> Response:
    tasks = BackgroundTasks(request)
    tasks.add_task(note, "of the middleware")
    answer: Response = await call_next(request)
    return await tasks.recorded(answer)


@pytest.mark.parametrize("later", [False, True], ids=["given to the app", "added after its Segundo"])
async def test_middleware_adds_calls_to_the_answer_that_it_passes_on(later: bool) -> None:
    middleware = [Middleware(BaseHTTPMiddleware, dispatch=dispatch) for dispatch in (passes_on, adds_too)]
    app = Starlette(routes=[Route("/", answers)], middleware=[] if later else middleware)
    Segundo(app)
    if later:
        for dispatch in (adds_too, passes_on):
            app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    async with running(app) as client:
        assert (await client.get("/")).json() == {"ok": True}
        await ended(3)
    assert sorted(events()) == ["in process", "of the middleware", "plain", "task"]


@pytest.mark.parametrize("kind", [Starlette, FastAPI])
async def test_exception_handlers_give_calls_to_their_answers(kind: Any) -> None:
    async def broken(request: Request) -> Response:
        raise LookupError if request.url.path == "/handled" else RuntimeError

    async def handler(request: Request, error: Exception) -> Response:
        tasks = BackgroundTasks(request)
        tasks.add_task(note, type(error).__name__)
        return await tasks.recorded(JSONResponse("sorry", 500))

    handlers = {LookupError: handler, Exception: handler}
    app = kind(routes=[Route("/{path}", broken)], exception_handlers=handlers)
    Segundo(app)
    async with running(app, raise_app_exceptions=False) as client:
        assert (await client.get("/handled")).status_code == 500
        assert (await client.get("/unhandled")).status_code == 500
        await ended(2)
    assert sorted(events()) == ["LookupError", "RuntimeError"]


async def test_apps_and_routes_below_a_starlette_app_have_its_calls() -> None:
    below = FastAPI(routes=[Route("/starlette", answers)])

    @below.get("/fastapi")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "of FastAPI")

    app = Starlette(routes=[Mount("/below", below)])
    Segundo(app)
    async with running(app) as client:
        assert (await client.get("/below/starlette")).status_code == 200
        assert (await client.get("/below/fastapi")).status_code == 200
        await ended(3)
    assert sorted(events()) == ["in process", "of FastAPI", "plain", "task"]


async def test_calls_added_while_the_answer_streams_are_recorded_as_they_come() -> None:
    async def endpoint(request: Request) -> Response:
        tasks = BackgroundTasks(request)
        tasks.add_task(note, "before")

        async def body() -> Any:
            tasks.add_task(note, "while it streams")
            await tasks.flush()
            assert states() == ["waiting", "waiting"]
            yield b"ok"

        return await tasks.recorded(StreamingResponse(body()))

    async with running(app_of(endpoint)) as client:
        assert (await client.get("/")).text == "ok"
        await ended(2)
    assert events() == ["before", "while it streams"]


async def test_a_websockets_calls_are_recorded_and_released_as_they_come() -> None:
    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        tasks = BackgroundTasks(socket)
        tasks.add_task(note, "opened")
        await tasks.flush()
        await ended(1)
        tasks.add_task(note, "closed")
        await socket.close()

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    Segundo(app)
    messages: list[Message] = []
    incoming = iter([{"type": "websocket.connect"}])

    async def receive() -> Message:
        return next(incoming)

    async def send(message: Message) -> None:
        messages.append(message)

    async with lifespan(app):
        await app({**http_scope(), "type": "websocket", "scheme": "ws"}, receive, send)
        await ended(2)
    assert events() == ["opened", "closed"]


def host() -> str:
    return "mail.example"


@task
def injected(host: Annotated[str, fastapi.Depends(host)] = INJECTED) -> None:
    note(f"by {host}")


async def test_a_task_of_a_starlette_app_has_its_dependencies() -> None:
    app = app_of(answers)
    async with lifespan(app):
        await app.state.segundo.submit(injected)
        await ended(1)
    assert events() == ["by mail.example"]


def test_in_the_test_mode_calls_run_before_the_clients_call_returns() -> None:
    app = app_of(answers)
    assert TestClient(app).get("/").json() == {"ok": True}  # nobody runs the lifespan
    assert sorted(events()) == ["in process", "plain", "task"]
    with TestClient(app) as client:
        assert client.get("/").json() == {"ok": True}
    assert sorted(events()[3:]) == ["in process", "plain", "task"]
    assert records() == []


async def test_an_app_whose_lifespan_nobody_runs_starts_at_its_first_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = app_of(answers)
    async with calling(app) as client:
        assert (await client.get("/")).json() == {"ok": True}
        await ended(2)
    assert "the app's lifespan did not run" in messages(caplog)[-1]


async def test_the_status_routes_work_and_accepted_leads_there() -> None:
    async def endpoint(request: Request) -> Response:
        tasks = BackgroundTasks(request)
        call = tasks.add_task(declared, "task")
        return await tasks.recorded(tasks.accepted(call))

    async with running(app_of(endpoint, status="/tasks")) as client:
        answer = await client.get("/")
        assert (answer.status_code, answer.json()["state"]) == (202, "waiting")
        await ended(1)
        shown = await client.get(answer.headers["location"])
        assert shown.json()["state"] == "succeeded"
        assert (await client.get("/tasks/unknown")).status_code == 404
        assert (await client.get("/")).status_code == 202


async def test_the_status_routes_of_an_own_router_ask_its_dependencies() -> None:
    def operator(request: Request) -> None:
        if "operator" not in request.headers:
            raise fastapi.HTTPException(401)

    router = fastapi.APIRouter(prefix="/tasks", dependencies=[fastapi.Depends(operator)])
    app = app_of(answers, status=router)
    async with running(app) as client:
        await client.get("/")
        first, _ = await ended(2)
        assert (await client.get(f"/tasks/{first['id']}")).status_code == 401
        detail = await client.get(f"/tasks/{first['id']}", headers={"operator": "ada"})
        assert "arguments" in detail.json()


def database_of(request: Request) -> str:
    return f"{request.app.state.database} {request.state.pool}"


@task
def reads(database: Annotated[str, Depends(database_of)] = INJECTED) -> str:
    assert isinstance(current().app, Starlette)
    return database


async def test_tasks_depend_on_what_the_app_has_and_its_lifespan_yielded() -> None:
    @asynccontextmanager
    async def around(_: Starlette) -> AsyncGenerator[dict[str, str]]:
        yield {"pool": "pool"}

    async def endpoint(request: Request) -> Response:
        tasks = BackgroundTasks(request)
        tasks.add_task(reads)
        return await tasks.recorded(PlainTextResponse("ok"))

    app = Starlette(routes=[Route("/", endpoint)], lifespan=around)
    Segundo(app)
    app.state.database = "shop"
    async with running(app) as client:
        await client.get("/")
        (record,) = await ended(1)
    assert record["result"] == '"shop pool"'


def adds_by_request(request: Request) -> None:
    BackgroundTasks(request).add_task(note, "child")


@task
def has_a_child(_: Annotated[None, Depends(adds_by_request)] = INJECTED) -> None: ...


async def test_what_a_dependency_of_a_task_makes_from_its_request_adds_child_calls() -> None:
    app = app_of(answers)
    async with running(app):
        await app.state.segundo.submit(has_a_child)
        await ended(2)
    assert events() == ["child"]


async def adds_behind(request: Request, call_next: Any) -> Response:
    answer: Response = await call_next(request)
    tasks = BackgroundTasks(request)
    tasks.add_task(note, "outer")
    return await tasks.recorded(answer)


async def test_a_mounted_app_with_its_own_segundo_leaves_the_outer_request_to_the_outer_one() -> None:
    below = app_of(answers, ledger="below.db")
    app = Starlette(
        routes=[Mount("/below", below)], middleware=[Middleware(BaseHTTPMiddleware, dispatch=adds_behind)]
    )
    Segundo(app)
    async with running(app) as client, lifespan(below):
        assert (await client.get("/below/")).status_code == 200
        await ended(1)
        await ended(2, Path("below.db"))
    assert sorted(events()) == ["in process", "outer", "plain", "task"]


@pytest.mark.parametrize("with_a_segundo", [True, False])
async def test_middleware_above_a_mounted_app_finds_in_the_scope_what_is_written_below(
    with_a_segundo: bool,
) -> None:
    seen: list[Any] = []

    async def writes(request: Request) -> Response:
        scope = request.scope
        scope["set"] = True
        scope.update(updated=True)
        scope.setdefault("given", True)
        del scope["above"]
        assert scope.pop("above too")
        return Response()

    async def looks(request: Request, call_next: Any) -> Response:
        request.scope |= {"above": True, "above too": True}
        response = await call_next(request)
        keys = ("set", "updated", "given", "above", "above too")
        seen.append([key for key in keys if key in request.scope])
        seen.append(request.scope["app"] is below)
        return cast("Response", response)

    below = Starlette(routes=[Route("/writes", writes)])
    if with_a_segundo:
        Segundo(below, ledger="below.db")
    app = Starlette(
        routes=[Mount("/below", below)], middleware=[Middleware(BaseHTTPMiddleware, dispatch=looks)]
    )
    Segundo(app)
    async with running(app) as client:
        assert (await client.get("/below/writes")).status_code == 200
    assert seen == [["set", "updated", "given"], True]


# By hand and wrong


async def test_without_a_segundo_it_says_what_is_missing() -> None:
    async with calling(Starlette(routes=[Route("/", answers)])) as client:
        with pytest.raises(ConfigurationError, match=r"make one with Segundo\(app\)"):
            await client.get("/")


async def test_what_is_the_background_of_a_response_without_being_recorded_is_recorded_late_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def endpoint(request: Request) -> Response:
        return JSONResponse({"ok": True}, background=adding(request))

    async with running(app_of(endpoint)) as client:
        assert (await client.get("/")).json() == {"ok": True}
        await ended(2)
    assert sorted(events()) == ["in process", "plain", "task"]
    assert "return await tasks.recorded(response)" in messages(caplog)[-1]


async def test_a_request_that_is_over_takes_no_calls() -> None:
    kept: list[Request] = []

    async def endpoint(request: Request) -> Response:
        kept.append(request)
        return PlainTextResponse("ok")

    async with running(app_of(endpoint)) as client:
        await client.get("/")
        with pytest.raises(RuntimeError, match="this request is over"):
            BackgroundTasks(kept[0])


@pytest.mark.parametrize("kind", [Starlette, FastAPI])
async def test_a_def_endpoint_is_told_what_to_do_instead(kind: Any) -> None:
    def endpoint(request: Request) -> Response:
        with pytest.raises(ConfigurationError, match="make this endpoint `async def`"):
            BackgroundTasks(request)
        return Response()

    app = kind(routes=[Route("/", endpoint)])
    Segundo(app)
    async with running(app) as client:
        assert (await client.get("/")).status_code == 200


async def test_a_def_endpoint_adds_calls_to_tasks_that_middleware_made() -> None:
    async def makes(request: Request, call_next: Any) -> Response:
        request.state.tasks = BackgroundTasks(request)
        response: Response = await call_next(request)
        return await cast("BackgroundTasks", request.state.tasks).recorded(response)

    def endpoint(request: Request) -> Response:
        request.state.tasks.add_task(note, "of a def")
        return Response()

    app = Starlette(
        routes=[Route("/", endpoint)], middleware=[Middleware(BaseHTTPMiddleware, dispatch=makes)]
    )
    Segundo(app)
    async with running(app) as client:
        assert (await client.get("/")).status_code == 200
        await ended(1)
    assert events() == ["of a def"]


async def test_recorded_is_for_responses_and_for_calls_of_a_request() -> None:
    async def endpoint(request: Request) -> Response:
        response: Any = {"ok": True}
        answer: Response = await BackgroundTasks(request).recorded(response)
        return answer

    async with running(app_of(endpoint)) as client:
        with pytest.raises(TypeError, match="takes a response of Starlette, not dict"):
            await client.get("/")
    with pytest.raises(ConfigurationError, match=r"of BackgroundTasks\(request\)"):
        await BackgroundTasks().recorded(JSONResponse(None))


# What Starlette's page on background tasks shows stays Starlette's


@pytest.mark.parametrize("with_segundo", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        Response,
        PlainTextResponse,
        HTMLResponse,
        JSONResponse,
        lambda _, **given: RedirectResponse("/", **given),
        lambda _, **given: StreamingResponse(iter(["ok"]), **given),
        lambda _, **given: FileResponse(__file__, **given),
    ],
)
async def test_a_background_task_on_any_response_runs_in_process_as_in_starlette(
    make: Any, with_segundo: bool
) -> None:
    async def endpoint(request: Request) -> Response:
        answer: Response = make("ok", background=StarletteBackgroundTask(note_async, event="task"))
        return answer

    await plays(endpoint, with_segundo)
    assert events() == ["task"]


@pytest.mark.parametrize("with_segundo", [False, True])
@pytest.mark.parametrize("kind", [BackgroundTask, StarletteBackgroundTask])
async def test_several_tasks_run_in_order_and_one_that_raises_stops_the_rest_as_in_starlette(
    kind: Any, with_segundo: bool
) -> None:
    class Signup(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            tasks = BackgroundTasks(tasks=[kind(note, "first"), kind(note_async, event="second")])
            tasks.add_task(fail, "third")
            tasks.add_task(note, "never")
            return JSONResponse({"ok": True}, background=tasks)

    await plays(Signup, with_segundo)
    assert events() == ["first", "second", "third"]


async def plays(endpoint: Any, with_segundo: bool) -> None:
    app = Starlette(routes=[Route("/", endpoint)])
    if with_segundo:
        Segundo(app)
    async with running(app, raise_app_exceptions=False) as client:
        assert (await client.get("/")).status_code in (200, 307)
    assert records() == []
