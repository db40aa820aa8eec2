"""Calls that cannot be written down run inline, as FastAPI runs them, and a failing one stops nothing."""

import functools
import html
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import ContextVar
from typing import Annotated, Any

import fastapi
import pytest
from fastapi import Depends, FastAPI, HTTPException

from segundo import BackgroundTask, BackgroundTasks, Segundo
from segundo.errors import DeclarationError
from tests.support import wait_until_async
from tests.web.apps import ended, messages, records, running, served_client
from tests.web.tasks import declared, events, fail, note


class Live:
    """What no ledger can hold."""

    def __init__(self, name: str = "live") -> None:
        self.name = name

    def method(self, event: str) -> None:
        note(f"{event} of {self.name}")

    def __call__(self, event: str) -> None:
        note(event)


def uses(live: Live) -> None:
    note(live.name)


def untyped(live) -> None:  # type: ignore[no-untyped-def]  # what is tested
    note(live.name)


@functools.wraps(note)
def wrapped(*args: Any, **kwargs: Any) -> None:
    note(*args, **kwargs)


def nested() -> Callable[[str], None]:
    def inner(event: str) -> None:
        note(event)

    return inner


CALLS = [
    pytest.param(lambda: note("called"), (), id="lambda"),
    pytest.param(functools.partial(note, "called"), (), id="partial"),
    pytest.param(Live("it").method, ("called",), id="bound method"),
    pytest.param(Live(), ("called",), id="callable object"),
    pytest.param(nested(), ("called",), id="nested function"),
    pytest.param(wrapped, ("called",), id="function under another's name"),
    pytest.param(uses, (Live("called"),), id="live argument"),
    pytest.param(untyped, (Live("called"),), id="live argument without annotation"),
]


@pytest.mark.parametrize(("function", "args"), CALLS)
async def test_a_call_that_cannot_be_recorded_runs_in_process_once_and_has_no_record(
    function: Any, args: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    Segundo(app)
    handles: list[Any] = []

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        handles.append(tasks.add_task(function, *args))

    async with running(app) as client:
        assert (await client.post("/")).status_code == 200
        assert [event.removesuffix(" of it") for event in events()] == ["called"]
        assert records() == []
        assert handles[0].id is None
        assert not handles[0].recorded
    (warning,) = messages(caplog)
    assert "runs in process and is lost if the process ends first" in warning


async def test_what_is_no_function_is_refused_on_its_line() -> None:
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        with pytest.raises(TypeError, match=r"a function and its arguments apart.* not None"):
            tasks.add_task(note("called at once"))  # type: ignore[func-returns-value]  # the mistake

    async with running(app) as client:
        assert (await client.post("/")).status_code == 200
    assert (records(), events()) == ([], ["called at once"])


async def test_the_log_names_the_function_of_a_partial_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(functools.partial(fail, "why"))

    async with running(app) as client:
        await client.post("/")
    assert messages(caplog, "ERROR") == ["fail, which ran in process, failed"]


async def test_another_packages_function_runs_in_process_and_the_warning_says_how_to_change_that(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(html.escape, "<b>")

    async with running(app) as client:
        await client.post("/")
        assert records() == []
    (warning,) = messages(caplog)
    assert warning.startswith("escape runs in process")
    assert "its module html is not the app's own code (modules=[…] adds to it)" in warning


async def test_each_function_is_warned_about_once_however_often_it_is_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(functools.partial(note, "partial"))
        tasks.add_task(Live().method, "method")
        tasks.add_task(uses, Live())
        tasks.add_task(lambda: None)

    async with running(app) as client:
        for _ in range(3):
            await client.post("/")
    assert len(events()) == 9
    assert len(messages(caplog)) == 4


async def test_a_plain_function_is_recorded_or_not_call_by_call() -> None:
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> list[bool]:
        return [
            tasks.add_task(anything, argument).id is not None
            for argument in (1, {"a": [None]}, Live(), "text")
        ]

    async with running(app) as client:
        assert (await client.post("/")).json() == [True, True, False, True]
        await ended(3)
    assert events()[0] == "Live"
    assert sorted(events()[1:]) == ["dict", "int", "str"]


def anything(value: Any) -> None:
    note(type(value).__name__)


async def test_a_failing_call_in_process_stops_nothing_behind_it_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = FastAPI()
    Segundo(app)

    async def fails() -> None:
        fail("async")

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "recorded")
        tasks.add_task(lambda: fail("def"))
        tasks.add_task(fails)
        tasks.add_task(raises_http_exception, Live())
        tasks.add_task(lambda: note("last"))

    async with running(app) as client:  # what the app raises would be raised here
        assert (await client.post("/")).status_code == 200
        await ended(1)
    assert events() == ["def", "async", "last", "recorded"]
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [str(error.exc_info[1]) for error in errors if error.exc_info] == ["def", "async", "503: down"]


def raises_http_exception(live: Live) -> None:
    raise HTTPException(503, "down")


async def test_they_run_after_the_last_byte_while_the_requests_sessions_are_open() -> None:
    app = FastAPI()
    Segundo(app)

    class Session:
        open = True

    def session() -> Generator[Session]:
        session = Session()
        yield session
        session.open = False

    def writes(session: Session) -> None:
        note(f"session open: {session.open}")

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks, session: Annotated[Session, Depends(session)]) -> None:
        tasks.add_task(writes, session)

    async with served_client(app) as client:
        await client.post("/")
    assert events() == ["session open: True"]


async def test_a_request_whose_session_fails_after_the_answer_has_run_its_calls_once() -> None:
    app = FastAPI()
    Segundo(app)

    def session() -> Generator[None]:
        yield
        raise RuntimeError("the commit failed")

    @app.post("/", dependencies=[Depends(session)])
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(lambda: note("in process"))

    async with running(app, raise_app_exceptions=False) as client:
        await client.post("/")
    assert events() == ["in process"]


async def test_they_see_the_requests_context_variables_also_those_of_an_async_dependency() -> None:
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
    app = FastAPI()
    Segundo(app)

    async def chosen() -> None:
        tenant.set("ada")

    @app.post("/", dependencies=[Depends(chosen)])
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(lambda: note(f"def sees {tenant.get()}"))

        async def asynchronous() -> None:
            note(f"async sees {tenant.get()}")

        tasks.add_task(asynchronous)

    async with running(app) as client:
        await client.post("/")
    assert events() == ["def sees ada", "async sees ada"]


async def test_def_calls_run_in_segundos_own_threads_and_never_use_up_those_that_serve_requests() -> None:
    app = FastAPI()
    Segundo(app)
    gate = threading.Event()

    def waits() -> None:
        note(threading.current_thread().name)
        gate.wait()

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(waits)

    @app.get("/")
    def in_a_thread() -> str:
        return "answered"

    async with served_client(app) as client:
        try:
            for _ in range(45):  # AnyIO has 40 threads for the whole app
                assert (await client.post("/")).status_code == 200
            await wait_until_async(lambda: len(events()) == 45)
            assert (await client.get("/", timeout=5)).json() == "answered"
        finally:
            gate.set()
    assert {name.rpartition("-")[0] for name in events()} == {"segundo-in-process"}


async def test_a_call_that_was_recorded_does_not_also_run_in_process() -> None:
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    async def endpoint(tasks: fastapi.BackgroundTasks) -> None:
        tasks.add_task(declared, "recorded")
        tasks.add_task(lambda: note("in process"))
        await tasks()  # nobody has to, and nothing may happen twice by it

    async with running(app) as client:
        await client.post("/")
        await ended(1)
    assert sorted(events()) == ["in process", "recorded"]


async def test_starlettes_own_task_objects_in_the_list_run_in_process_through_their_call() -> None:
    app = FastAPI()
    Segundo(app)

    class Announced(BackgroundTask):
        async def __call__(self) -> None:
            note("before")
            await super().__call__()

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.tasks.append(Announced(note, "called"))

    async with running(app) as client:
        await client.post("/")
        assert records() == []
    assert events() == ["before", "called"]


async def test_a_streams_calls_in_process_wait_for_its_last_byte() -> None:
    app = FastAPI()
    Segundo(app)

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> fastapi.responses.StreamingResponse:
        tasks.add_task(lambda: note("in process"))

        async def body() -> AsyncGenerator[str]:
            for number in range(3):
                note(f"chunk {number}")
                yield str(number)

        return fastapi.responses.StreamingResponse(body())

    async with served_client(app) as client:
        assert (await client.get("/")).text == "012"
    assert events() == ["chunk 0", "chunk 1", "chunk 2", "in process"]


async def test_a_def_call_that_raises_stop_iteration_ends_like_any_that_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(lambda: next(iter([])))
        tasks.add_task(lambda: note("last"))

    async with running(app) as client:
        assert (await client.post("/", timeout=5)).status_code == 200
    assert events() == ["last"]
    assert "raised StopIteration" in caplog.text


def goes_through() -> Generator[None]:
    note("never")
    yield


async def goes_through_async() -> AsyncGenerator[None]:
    note("never")
    yield


class Holder:
    def goes_through(self) -> Generator[None]:
        note("never")
        yield


GENERATORS = [goes_through, goes_through_async, Holder().goes_through, functools.partial(goes_through)]


@pytest.mark.parametrize("function", GENERATORS, ids=["def", "async def", "method", "partial"])
async def test_a_generator_is_refused_on_the_callers_line_whose_body_would_never_run(function: Any) -> None:
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> str:
        tasks.add_task(note, "with it")
        with pytest.raises(DeclarationError, match=r"goes_through.* has a `yield`.* never run as a task"):
            tasks.add_task(function)
        return "ok"

    async with running(app) as client:
        assert (await client.post("/")).json() == "ok"
        await ended(1)
    assert events() == ["with it"]
