"""Raw ASGI apps: the server runs the Segundo around them, and `BackgroundTasks(seg)` is the request's."""

from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from segundo import BackgroundTasks, Segundo, current, task
from segundo.errors import ConfigurationError
from tests.web.apps import LEDGER, ended, records, running
from tests.web.tasks import declared, events, note


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"  # as most that are written by hand: it knows of no lifespan
    tasks = BackgroundTasks(seg_of[0])
    tasks.add_task(note, "plain")
    tasks.add_task(declared, "task")
    tasks.add_task(lambda: note("in process"))
    response = await tasks.recorded(JSONResponse({"ok": True}))
    if scope["path"] == "/fails":
        raise RuntimeError("after all")
    await response(scope, receive, send)


seg_of: list[Segundo] = []


@pytest.fixture
def seg() -> Segundo:
    seg_of[:] = [Segundo(app)]
    return seg_of[0]


async def test_an_app_that_knows_no_lifespan_is_started_and_stopped_and_keeps_its_calls(seg: Segundo) -> None:
    async with running(seg) as client:
        assert (await client.get("/")).json() == {"ok": True}
        await ended(2)
    assert sorted(events()) == ["in process", "plain", "task"]


async def test_a_request_that_fails_after_recording_leaves_nothing(seg: Segundo) -> None:
    async with running(seg, raise_app_exceptions=False) as client:
        assert (await client.get("/fails")).status_code == 500
    assert (records(), events()) == ([], [])


async def test_a_ledger_that_cannot_record_is_answered_503(seg: Segundo) -> None:
    async with running(seg) as client:
        LEDGER.unlink()
        answer = await client.get("/")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.text == "the work could not be recorded, try again"
    assert events() == []


async def test_a_request_made_by_hand_serves_as_well() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tasks = BackgroundTasks(Request(scope))
        tasks.add_task(note, "task")
        await (await tasks.recorded(PlainTextResponse("ok")))(scope, receive, send)

    async with running(Segundo(quiet(app))) as client:
        assert (await client.get("/")).text == "ok"
        await ended(1)
    assert events() == ["task"]


def quiet(app: Any) -> Any:
    """The app, which says of the lifespan that it has none by returning."""

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)

    return asgi


async def test_an_app_with_a_lifespan_of_its_own_has_it_run() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        for step in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{step}"
            note(step)
            await send({"type": f"lifespan.{step}.complete"})

    async with running(Segundo(app)):
        assert events() == ["startup"]
    assert events() == ["startup", "shutdown"]


async def test_a_start_up_that_fails_fails() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        raise OSError("no database")

    with pytest.raises(AssertionError, match="no database"):
        async with running(Segundo(app)):
            pass


def test_in_the_test_mode_calls_run_before_the_clients_call_returns(seg: Segundo) -> None:
    assert TestClient(seg).get("/").json() == {"ok": True}
    assert sorted(events()) == ["in process", "plain", "task"]
    assert records() == []


def test_outside_a_request_there_is_nothing_to_add_to(seg: Segundo) -> None:
    with pytest.raises(RuntimeError, match="uvicorn main:seg"):
        BackgroundTasks(seg)


def test_the_status_routes_need_an_app_with_routes() -> None:
    with pytest.raises(ConfigurationError, match="Mount"):
        Segundo(app, status="/tasks")


@pytest.mark.parametrize("wrong", ["main:app", Segundo, None])
def test_what_is_no_app_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="takes a FastAPI app, a Starlette app or another ASGI app"):
        Segundo(wrong)


@task
def knows_its_app() -> bool:
    return current().app is app


async def test_a_task_knows_its_app(seg: Segundo) -> None:
    async with running(seg):
        assert await (await seg.submit(knows_its_app)).result(timeout=10)
