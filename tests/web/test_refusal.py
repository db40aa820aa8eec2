"""A request that fails before its answer leaves nothing behind; one that cannot be recorded is refused."""

import sqlite3
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import closing
from typing import Annotated, Any, cast

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel

from segundo import BackgroundTasks, Segundo
from tests.web.apps import LEDGER, Watched, ended, records, running, served_client
from tests.web.tasks import declared, events, note


class Item(BaseModel):
    price: int


def adds(tasks: BackgroundTasks) -> None:
    tasks.add_task(note, "added")
    tasks.add_task(declared, "added")
    tasks.add_task(lambda: note("added"))


Adds = Depends(adds)


def raises() -> None:
    raise RuntimeError("the endpoint failed")


def raises_http_exception() -> None:
    raise HTTPException(404, "no such thing")


def wants_a_number(number: int) -> None: ...


def answers_with_no_item() -> Any:
    return {"price": "not a number"}


def fails_in_a_dependency(_: Annotated[None, Depends(raises)]) -> None: ...


def fails_at_the_function_scopes_exit() -> Generator[None]:
    yield
    raise HTTPException(409, "the transaction could not be committed")


def commits(_: Annotated[None, Depends(fails_at_the_function_scopes_exit, scope="function")]) -> None: ...


def adds_a_bad_argument(tasks: BackgroundTasks) -> None:
    tasks.add_task(declared, cast(Any, object()))


FAILURES = [
    pytest.param(raises, {}, 500, id="the endpoint raises"),
    pytest.param(raises_http_exception, {}, 404, id="the endpoint raises an HTTPException"),
    pytest.param(wants_a_number, {}, 422, id="the request does not validate"),
    pytest.param(answers_with_no_item, {"response_model": Item}, 500, id="the response does not validate"),
    pytest.param(fails_in_a_dependency, {}, 500, id="a dependency raises"),
    pytest.param(commits, {}, 409, id="a function-scoped dependency fails at its exit"),
    pytest.param(adds_a_bad_argument, {}, 500, id="a declared task is given a bad argument"),
]


@pytest.mark.parametrize(("endpoint", "options", "status"), FAILURES)
async def test_nothing_of_a_request_that_fails_is_recorded_or_run_if(
    endpoint: Callable[..., Any], options: dict[str, Any], status: int
) -> None:
    app = FastAPI()
    Segundo(app)
    app.get("/", dependencies=[Adds], **options)(endpoint)

    @app.get("/after")
    def after(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "after")

    async with running(app, raise_app_exceptions=False) as client:
        assert (await client.get("/")).status_code == status
        assert (await client.get("/after")).status_code == 200
        (record,) = await ended(1)
    assert (events(), record["arguments"]) == (["after"], '{"event":"after"}')


async def test_an_endpoint_that_returns_an_error_has_answered_so_its_calls_are_kept() -> None:
    app = FastAPI()
    Segundo(app)

    @app.get("/")
    def endpoint(tasks: BackgroundTasks) -> JSONResponse:
        tasks.add_task(note, "kept")
        return JSONResponse({"error": "conflict"}, 409)

    async with running(app) as client:
        assert (await client.get("/")).status_code == 409
        await ended(1)
    assert events() == ["kept"]


async def test_an_http_exception_that_a_dependency_turns_into_an_answer_drops_them_all_the_same() -> None:
    app = FastAPI()
    Segundo(app)

    async def translates() -> AsyncGenerator[None]:
        try:
            yield
        except RuntimeError as error:
            raise HTTPException(418, str(error)) from error

    @app.get("/", dependencies=[Adds, Depends(translates)])
    def endpoint() -> None:
        raise RuntimeError("short and stout")

    async with running(app) as client:
        assert (await client.get("/")).status_code == 418
    assert (records(), events()) == ([], [])


# The ledger cannot record


class Session:
    """What a request-scoped dependency saw of its request's end."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.closed = False

    async def __call__(self) -> AsyncGenerator[None]:
        try:
            yield
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.closed = True


def answers_json() -> str:
    return "ok"


def answers_itself() -> JSONResponse:
    return JSONResponse("ok")


def streams() -> StreamingResponse:
    return StreamingResponse(iter(["o", "k"]))


def sends_a_file() -> FileResponse:
    return FileResponse(__file__)


def app_that(endpoint: Callable[..., Any], session: Session, **settings: Any) -> FastAPI:
    app = FastAPI()
    Segundo(app, **settings)
    app.get("/", dependencies=[Adds, Depends(session)])(endpoint)
    return app


@pytest.mark.parametrize("endpoint", [answers_json, answers_itself, streams, sends_a_file])
async def test_a_request_whose_calls_cannot_be_recorded_is_answered_503_and_nothing_else(
    endpoint: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    session = Session()
    async with served_client(app_that(endpoint, session, record_timeout=0.2)) as client:
        with closing(sqlite3.connect(LEDGER, isolation_level=None)) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            answer = await client.get("/")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json() == {"detail": "the work could not be recorded, try again"}
        assert isinstance(session.error, HTTPException)
        assert session.closed
        assert "a request is refused" in caplog.text
        assert (await client.get("/")).status_code == 200  # the lock is gone, and the app is as before
        assert len(await ended(2)) == 2
    assert events().count("added") == 3  # those of the second request only


async def test_a_file_that_was_deleted_under_the_app_refuses_requests_at_once() -> None:
    async with running(app_that(answers_json, Session())) as client:
        LEDGER.unlink()
        assert (await client.get("/")).status_code == 503
        assert (await client.get("/")).status_code == 503
    assert events() == []


async def test_the_apps_own_exception_handler_sees_the_refusal() -> None:
    app = app_that(answers_json, Session())

    @app.exception_handler(HTTPException)
    async def handler(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"sorry": error.detail}, error.status_code, {"x-handled": "yes"})

    async with running(app) as client:
        LEDGER.unlink()
        answer = await client.get("/")
    assert (answer.status_code, answer.headers["x-handled"]) == (503, "yes")
    assert answer.json() == {"sorry": "the work could not be recorded, try again"}


async def test_a_refused_request_sends_no_byte_of_the_answer_it_had_ready() -> None:
    started: list[str] = []
    watched = Watched(app_that(streams, Session()), started.append)
    async with running(watched) as client:
        LEDGER.unlink()
        answer = await client.get("/")
    assert (answer.status_code, "ok" in answer.text) == (503, False)
    assert started == ["first byte", "last byte", "over"]


async def test_work_is_done_also_for_a_client_that_gave_up_while_the_ledger_was_locked() -> None:
    async with served_client(app_that(answers_json, Session(), record_timeout=5)) as client:
        with closing(sqlite3.connect(LEDGER, isolation_level=None)) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            with pytest.raises(httpx.ReadTimeout):
                await client.get("/", timeout=0.2)
            assert records() == []
        await ended(2)
    assert events() == ["added"] * 3
