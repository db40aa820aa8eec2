"""Every way to give an app a start and an end, before `Segundo(app)` and after it."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI

from segundo import Segundo
from tests.support import wait_until_async
from tests.web.apps import calling, ended, lifespan, messages, running, states
from tests.web.tasks import declared, events, note


@asynccontextmanager
async def own(app: FastAPI) -> AsyncGenerator[None]:
    note("starts")
    yield
    note("stops")


async def starts() -> None:
    note("starts")


async def stops() -> None:
    note("stops")


def replaces(app: FastAPI) -> None:
    app.router.lifespan_context = own


def wraps(app: FastAPI) -> None:
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def around(app: FastAPI) -> AsyncGenerator[Any]:
        async with own(app), inner(app) as state:
            yield state

    app.router.lifespan_context = around


def handles_events(app: FastAPI) -> None:
    app.router.add_event_handler("startup", starts)
    app.router.add_event_handler("shutdown", stops)


def adds_a_task(app: FastAPI) -> None:
    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(declared, "task")


@pytest.mark.parametrize("first", ["the Segundo", "the lifespan"])
@pytest.mark.parametrize("gives", [replaces, wraps, handles_events])
async def test_an_app_starts_runs_its_tasks_and_stops_whichever_way_it_says_so(
    gives: Callable[[FastAPI], None], first: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    if first == "the Segundo":
        segundo = Segundo(app)
        gives(app)
    else:
        gives(app)
        segundo = Segundo(app)
    adds_a_task(app)
    for count in (1, 2):
        async with running(app) as client:
            await client.post("/")
            await ended(count)
        assert segundo._life.runtime is None, "the ledger is closed again"
    assert events() == ["starts", "task", "stops"] * 2
    assert messages(caplog) == []


async def test_what_was_left_runs_before_the_first_request_though_the_lifespan_was_replaced() -> None:
    left = FastAPI()
    Segundo(left, concurrency=0)
    adds_a_task(left)
    async with running(left) as client:
        await client.post("/")
    assert states() == ["queued"]
    app = FastAPI()
    Segundo(app)
    replaces(app)
    async with lifespan(app):
        await ended(1)
    assert events() == ["starts", "task", "stops"]


async def test_requests_that_come_during_the_start_up_are_recorded_and_run_after_it() -> None:
    @asynccontextmanager
    async def slow(app: FastAPI) -> AsyncGenerator[None]:
        async with calling(app) as client:  # as a readiness check of its own, or a request to itself
            await client.post("/")
        await wait_until_async(lambda: states() == ["queued"])
        note(f"starts, {states()}")
        yield

    app = FastAPI()
    Segundo(app)
    inner = app.router.lifespan_context
    adds_a_task(app)

    @asynccontextmanager
    async def both(app: FastAPI) -> AsyncGenerator[Any]:
        async with inner(app) as state, slow(app):
            yield state

    app.router.lifespan_context = both
    async with lifespan(app):
        await ended(1)
    assert events() == ["starts, ['queued']", "task"]
