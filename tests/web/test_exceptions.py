"""What is raised, where, and what becomes of the calls; which dependencies can add any."""

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, Generator
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.background import BackgroundTask

import segundo
from segundo import Segundo
from tests.support import wait_until_async
from tests.web.apps import LEDGER, ended, records, running, served_client
from tests.web.tasks import declared, events, fail, note


class Sold(Exception):
    """An error of the app's own, for which it has a handler."""


def shop() -> FastAPI:
    app = FastAPI()
    Segundo(app)

    @app.post("/http")
    async def http(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "dropped")
        raise HTTPException(402, "pay first")

    @app.post("/sold")
    async def sold(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "dropped")
        raise Sold

    @app.post("/number/{number}")
    async def number(number: int) -> None: ...

    return app


# Exception handlers: FastAPI gives them the request, and no dependencies


async def test_an_exception_handler_answers_and_the_calls_of_the_request_are_dropped() -> None:
    app = shop()

    @app.exception_handler(Sold)
    async def handler(request: Request, error: Sold) -> JSONResponse:
        return JSONResponse({"sold": True}, 410)

    async with served_client(app) as client:
        assert (await client.post("/sold")).json() == {"sold": True}
        assert (await client.post("/http")).status_code == 402
    assert (records(), events()) == ([], [])


@pytest.mark.parametrize(
    ("error", "path"), [(Sold, "/sold"), (HTTPException, "/http"), (RequestValidationError, "/number/none")]
)
async def test_a_background_task_of_an_exception_handlers_answer_runs_in_process(
    error: type[Exception], path: str
) -> None:
    app = shop()

    @app.exception_handler(error)
    async def handler(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse("sorry", 418, background=BackgroundTask(note, "the handler's"))

    async with served_client(app) as client:
        assert (await client.post(path)).status_code == 418
    assert (records(), events()) == ([], ["the handler's"])


async def test_an_exception_handler_that_is_handed_the_requests_tasks_and_answers_with_them_keeps_them() -> (
    None
):
    app = FastAPI()
    Segundo(app)

    def kept(request: Request, tasks: BackgroundTasks) -> None:
        request.state.tasks = tasks
        tasks.add_task(note, "recorded")
        tasks.add_task(lambda: note("in process"))
        tasks.add_task(declared, "declared")

    @app.post("/", dependencies=[Depends(kept)])
    async def endpoint() -> None:
        raise Sold

    @app.exception_handler(Sold)
    async def handler(request: Request, error: Sold) -> JSONResponse:
        request.state.tasks.add_task(note, "the handler's")
        return JSONResponse("sorry", 410, background=request.state.tasks)

    async with served_client(app) as client:
        assert (await client.post("/")).status_code == 410
        await ended(3)
    assert sorted(events()) == ["declared", "in process", "recorded", "the handler's"]


async def test_the_calls_of_a_request_that_was_refused_are_gone_whoever_answers_with_them() -> None:
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    async def endpoint(request: Request, tasks: BackgroundTasks) -> None:
        request.state.tasks = tasks
        tasks.add_task(note, "never")
        tasks.add_task(lambda: note("never"))

    @app.exception_handler(HTTPException)
    async def handler(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse("sorry", error.status_code, background=request.state.tasks)

    async with running(app) as client:
        kept = LEDGER.rename("elsewhere")
        assert (await client.post("/")).status_code == 503
        kept.rename(LEDGER)
    assert (records(), events()) == ([], [])


async def test_a_failing_task_whose_error_has_a_handler_is_its_own_failure_and_nobodys_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = FastAPI()
    Segundo(app)

    def sells() -> None:
        raise Sold("in process")

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> str:
        tasks.add_task(sells)
        tasks.add_task(sells_recorded)
        tasks.add_task(fail, "last")
        return "ok"

    @app.exception_handler(Sold)
    async def handler(request: Request, error: Sold) -> JSONResponse:
        note("the handler was called")
        return JSONResponse("sorry", 410)

    async with served_client(app) as client:
        assert (await client.post("/")).json() == "ok"
        found = await ended(2)
    assert [record["state"] for record in found] == ["failed", "failed"]
    assert events() == ["last"]
    assert "response already started" not in caplog.text
    assert "Sold: in process" in caplog.text


def sells_recorded() -> None:
    raise HTTPException(404, "an HTTPException in a task is an error as any other")


@pytest.mark.parametrize("status", [200, 302, 404, 422, 500, 503])
async def test_an_answer_that_is_returned_keeps_its_calls_whatever_its_status(status: int) -> None:
    app = FastAPI()
    Segundo(app)

    @app.post("/own")
    async def own(tasks: BackgroundTasks) -> Response:
        tasks.add_task(note, "own")
        return JSONResponse("ok", status)

    @app.post("/set")
    async def sets(tasks: BackgroundTasks, response: Response) -> None:
        tasks.add_task(note, "set")
        response.status_code = status

    async with served_client(app) as client:
        for number, path in enumerate(["/own", "/set"]):
            assert (await client.post(path)).status_code == status
            await ended(number + 1)
    assert events() == ["own", "set"]


# Dependencies


async def test_a_dependency_that_is_not_cached_adds_once_for_each_use() -> None:
    app = FastAPI()
    Segundo(app)

    def adds(tasks: BackgroundTasks) -> int:
        tasks.add_task(note, f"{len(tasks.tasks)}")
        return len(tasks.tasks)

    @app.post("/")
    async def endpoint(
        cached: Annotated[int, Depends(adds)],
        again: Annotated[int, Depends(adds)],
        fresh: Annotated[int, Depends(adds, use_cache=False)],
    ) -> list[int]:
        return [cached, again, fresh]

    async with running(app) as client:
        assert (await client.post("/")).json() == [1, 1, 2]
        await ended(2)
    assert events() == ["0", "1"]


async def test_what_exits_in_both_scopes_add_runs_after_the_endpoints_in_the_order_of_the_exits() -> None:
    app = FastAPI()
    Segundo(app)

    async def request_scoped(tasks: BackgroundTasks) -> AsyncGenerator[None]:
        yield
        tasks.add_task(note, "request scope")

    def function_scoped(tasks: BackgroundTasks) -> Generator[None]:
        yield
        tasks.add_task(note, "function scope")

    @app.post("/", dependencies=[Depends(request_scoped), Depends(function_scoped, scope="function")])
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "endpoint")

    async with served_client(app) as client:
        assert (await client.post("/")).status_code == 200
        await ended(3)
    assert events() == ["endpoint", "function scope", "request scope"]


async def test_an_exit_that_turns_an_error_into_an_http_exception_can_add_nothing() -> None:
    app = FastAPI()
    Segundo(app)

    def translates(tasks: BackgroundTasks) -> Generator[None]:
        try:
            yield
        except Sold as error:
            tasks.add_task(note, "never")
            raise HTTPException(410) from error

    @app.post("/", dependencies=[Depends(translates)])
    async def endpoint() -> None:
        raise Sold

    async with served_client(app) as client:
        assert (await client.post("/")).status_code == 410
    assert (records(), events()) == ([], [])


async def test_an_override_that_yields_adds_at_its_exit_as_any_dependency() -> None:
    app = FastAPI()
    Segundo(app)

    def plain() -> None: ...

    def overriding(tasks: segundo.BackgroundTasks) -> Generator[None]:
        tasks.add_task(note, "override begins")
        yield
        tasks.add_task(note, "override ends")

    app.dependency_overrides[plain] = overriding

    @app.post("/")
    async def endpoint(_: Annotated[Any, Depends(plain)]) -> None: ...

    async with running(app) as client:
        await client.post("/")
        await ended(2)
    assert events() == ["override begins", "override ends"]


async def test_a_recorded_task_holds_no_place_among_those_that_a_dependency_lets_in_at_once() -> None:
    if "max_concurrency" not in inspect.signature(Depends).parameters:
        pytest.skip("this FastAPI's dependencies have no max_concurrency")
    app = FastAPI()
    Segundo(app)
    gate.clear()

    async def session() -> AsyncGenerator[None]:
        yield

    one_at_a_time: Any = functools.partial(Depends, max_concurrency=1)

    @app.post("/", dependencies=[one_at_a_time(session)])
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(waits)

    async with served_client(app) as client:
        for _ in range(2):
            assert (await client.post("/")).status_code == 200
        await wait_until_async(lambda: events() == ["waits", "waits"])
        gate.set()
        await ended(2)


gate = asyncio.Event()


async def waits() -> None:
    note("waits")
    await gate.wait()
