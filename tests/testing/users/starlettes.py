"""Starlette, and ASGI apps without a framework, are in test mode too."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from shop import charge, fail, ran
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from segundo import BackgroundTasks, Segundo
from segundo.testing import LedgerFaults, Recorder

CALLS: dict[str, tuple[Callable[..., Any], Any]] = {"/charge": (charge, 5), "/fail": (fail, "of itself")}


async def endpoint(request: Request) -> Response:
    tasks = BackgroundTasks(request)
    function, argument = CALLS[request.url.path]
    tasks.add_task(function, argument)
    return await tasks.recorded(JSONResponse({}))


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    tasks = BackgroundTasks(of_raw)
    function, argument = CALLS[scope["path"]]
    tasks.add_task(function, argument)
    response = await tasks.recorded(JSONResponse({}))
    await response(scope, receive, send)


starlette = Starlette(routes=[Route("/charge", endpoint), Route("/fail", endpoint)])
Segundo(starlette)
of_raw = Segundo(raw)
each_app = pytest.mark.parametrize("app", [starlette, of_raw], ids=["starlette", "raw"])


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@each_app
def test_a_call_is_held_seen_and_run(app: ASGIApp, tasks: Recorder) -> None:
    tasks.hold()
    TestClient(app).get("/charge")
    assert tasks.called(charge, amount=5)
    assert ran == []
    tasks.drain()
    assert len(ran) == 1


@each_app
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_call_runs_before_an_async_client_goes_on(app: ASGIApp, tasks: Recorder) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        await client.get("/charge")
    assert len(ran) == len(tasks.calls) == 1


@each_app
def test_a_request_is_refused(app: ASGIApp, ledger_faults: LedgerFaults) -> None:
    with ledger_faults.at("record"):
        assert TestClient(app).get("/charge").status_code == 503
    assert ran == []


@each_app
def test_fails_in_the_call(app: ASGIApp) -> None:
    TestClient(app).get("/fail")
