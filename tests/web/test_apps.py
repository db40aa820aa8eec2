"""Several apps in a process, apps below apps, their start-up and shutdown, and the test client."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fastapi
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import Mount

import segundo
from segundo import Segundo, task
from segundo.errors import ConfigurationError
from tests.support import wait_until_async
from tests.web.apps import LEDGER, calling, ended, lifespan, messages, records, running, served_client, states
from tests.web.tasks import declared, events, note


def make_app(name: str = "task", **settings: Any) -> FastAPI:
    app = FastAPI()
    Segundo(app, **settings)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(declared, name)
        tasks.add_task(note, f"plain {name}")

    return app


# Several


async def test_two_apps_of_a_process_keep_their_own_files() -> None:
    first, second = make_app("first", ledger="first.db"), make_app("second", ledger="second.db")
    async with running(first) as one, running(second) as other:
        await one.post("/")
        await other.post("/")
        for name in ("first", "second"):
            found = await ended(2, Path(f"{name}.db"))
            assert {record["arguments"] for record in found} == {
                f'{{"event":"{name}"}}',
                f'{{"event":"plain {name}"}}',
            }
    assert not LEDGER.exists()


async def test_two_apps_of_a_process_may_share_one_file() -> None:
    async with running(make_app("first")) as one, running(make_app("second")) as other:
        for _ in range(5):
            await one.post("/")
            await other.post("/")
        found = await ended(20)
    assert {record["state"] for record in found} == {"succeeded"}
    assert {record["claim"] for record in found} == {1}
    assert len(events()) == 20


async def test_one_of_two_apps_on_a_file_may_stop_and_the_other_goes_on() -> None:
    async with running(make_app("second")) as other:
        async with running(make_app("first")) as one:
            await one.post("/")
        await other.post("/")
        await ended(4)
    assert len(events()) == 4


async def test_an_app_without_a_segundo_beside_one_is_fastapis_own() -> None:
    other = FastAPI()
    seen: list[Any] = []

    @other.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        seen.append(tasks)
        tasks.add_task(note, "fastapi's")

    async with running(make_app()), calling(other) as client:
        await client.post("/")
    assert type(seen[0]) is fastapi.BackgroundTasks
    assert (records(), events()) == ([], ["fastapi's"])


async def test_an_app_may_start_again_after_it_stopped() -> None:
    app = make_app()
    for count in (2, 4):
        async with running(app) as client:
            await client.post("/")
            await ended(count)
    assert len(events()) == 4


# Below another


async def test_a_fastapi_app_that_is_mounted_in_a_mounted_one_is_given_background_tasks() -> None:
    app, below, deepest = FastAPI(), FastAPI(), FastAPI()
    Segundo(app)
    seen: list[Any] = []

    @deepest.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        seen.append(tasks)
        tasks.add_task(declared, "task")

    below.mount("/deepest", deepest)
    app.mount("/below", below)
    async with running(app) as client:
        assert (await client.post("/below/deepest/")).status_code == 200
        await ended(1)
    assert isinstance(seen[0], segundo.BackgroundTasks)
    assert events() == ["task"]


async def test_a_mounted_app_with_its_own_segundo_keeps_it() -> None:
    app, below = FastAPI(), make_app(ledger="below.db")
    Segundo(app)
    app.mount("/below", below)
    async with running(app), running(below), calling(app) as client:
        await client.post("/below/")
        await ended(2, Path("below.db"))
    assert records() == []


async def test_an_app_that_another_starts_and_stops_works_whole() -> None:
    inner = make_app()

    @asynccontextmanager
    async def starts_the_inner(app: Starlette) -> AsyncGenerator[None]:
        async with inner.router.lifespan_context(inner):
            yield

    outer = Starlette(routes=[Mount("/inner", inner)], lifespan=starts_the_inner)
    async with running(outer) as client:
        await client.post("/inner/")
        await ended(2)
    assert sorted(events()) == ["plain task", "task"]


# Start-up and shutdown


def keeps_a_diary(name: str) -> Callable[[Any], Any]:
    @asynccontextmanager
    async def diary(app: Any) -> AsyncGenerator[dict[str, str]]:
        note(f"{name} starts, {states()}")
        yield {name: "state"}
        note(f"{name} stops, {states()}")

    return diary


async def test_claiming_begins_after_the_whole_start_up_and_stops_before_the_shutdown() -> None:
    async with running(make_app("left over", concurrency=0)) as client:
        await client.post("/")
        await wait_until_async(lambda: states() == ["queued", "queued"])
    app = FastAPI(lifespan=keeps_a_diary("app"))
    Segundo(app, grace=10)
    app.include_router(APIRouter(lifespan=keeps_a_diary("router")))
    app.post("/")(adds_what_waits)
    gate.clear()
    async with lifespan(app):
        async with calling(app) as client:
            await ended(2)
            await client.post("/")
            await wait_until_async(lambda: "waits" in events())
        asyncio.get_running_loop().call_later(0.1, gate.set)
    assert events()[:2] == ["app starts, ['queued', 'queued']", "router starts, ['queued', 'queued']"]
    assert sorted(events()[2:4]) == ["left over", "plain left over"]
    three = "['succeeded', 'succeeded', 'succeeded']"
    assert events()[4:] == ["waits", "went on", f"router stops, {three}", f"app stops, {three}"]


gate = asyncio.Event()


@task
async def waits() -> None:
    note("waits")
    await gate.wait()
    note("went on")


async def adds_what_waits(tasks: BackgroundTasks) -> None:
    tasks.add_task(waits)


async def test_the_state_that_a_lifespan_yields_reaches_requests_as_before() -> None:
    app = FastAPI(lifespan=keeps_a_diary("app"))
    Segundo(app)

    @app.get("/")
    async def endpoint(request: fastapi.Request, tasks: BackgroundTasks) -> str:
        return request.state.app

    async with served_client(app) as client:
        assert (await client.get("/")).json() == "state"


async def test_a_start_up_that_fails_is_the_apps_own_failure_and_leaves_the_ledger_closed() -> None:
    @asynccontextmanager
    async def fails(app: Any) -> AsyncGenerator[None]:
        raise RuntimeError("no database")
        yield

    app = FastAPI()
    Segundo(app)
    app.include_router(APIRouter(lifespan=fails))
    with pytest.raises((RuntimeError, AssertionError), match="no database"):
        async with lifespan(app):
            pass
    async with running(make_app()) as client:  # the file is as free as before
        await client.post("/")
        await ended(2)


async def test_a_lifespan_that_nobody_runs_is_made_up_for_at_the_first_request_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make_app()
    async with calling(app) as client:
        for count in (2, 4):
            assert (await client.post("/")).status_code == 200
            await ended(count)
    await app.state.segundo._life.close()
    (warning,) = messages(caplog)
    assert "the app's lifespan did not run" in warning


def test_nothing_is_opened_before_the_app_starts() -> None:
    make_app()
    assert list(Path.cwd().iterdir()) == []


# The test client


@pytest.mark.parametrize("entered", [True, False], ids=["with", "without with"])
@pytest.mark.parametrize("ledger", [None, "real.db", "memory://"])
def test_calls_run_before_the_test_clients_call_returns_and_touch_no_file(
    entered: bool, ledger: str | None
) -> None:
    client = TestClient(make_app(ledger=ledger))
    if entered:
        with client:
            use(client)
    else:
        use(client)
    assert [path.name for path in Path.cwd().iterdir()] == ["events.txt"]


def use(client: TestClient) -> None:
    for count in (1, 2, 3):
        assert client.post("/").status_code == 200
        assert sorted(events()) == sorted(["task", "plain task"] * count)


def test_a_developers_ledger_is_not_read_by_a_test() -> None:
    asyncio.run(leave_a_record_behind())
    before = records()
    with TestClient(make_app("test")) as client:
        client.post("/")
    assert records() == before
    assert sorted(events()) == ["plain test", "test"]


async def leave_a_record_behind() -> None:
    async with running(make_app("left over", concurrency=0)) as client:
        await client.post("/")
        await wait_until_async(lambda: states() == ["queued", "queued"])


def test_the_test_mode_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "segundo")
    with TestClient(make_app()):
        pass
    assert "test mode: calls run inline" in caplog.text


def test_a_test_client_sees_the_order_retries_and_status_of_the_real_thing() -> None:
    app = FastAPI()
    Segundo(app, status="/tasks")

    @app.post("/")
    async def endpoint(tasks: segundo.BackgroundTasks) -> Any:
        tasks.add_task(lambda: note("in process"))
        tasks.add_task(note, "first")
        tasks.add_task(note, "second")
        return tasks.accepted(tasks.add_task(fails_once))

    with TestClient(app) as client:
        answer = client.post("/")
        assert answer.status_code == 202
        assert client.get(answer.headers["location"]).json()["state"] == "succeeded"
        assert client.get("/tasks/unknown").status_code == 404
    assert events()[0] == "in process"
    assert [event for event in events() if event in ("first", "second")] == ["first", "second"]
    assert [event for event in events() if event.startswith("attempt")] == ["attempt 1", "attempt 2"]


@task(retry=segundo.Retry(base=0))
async def fails_once() -> None:
    note(f"attempt {segundo.current().attempt}")
    if segundo.current().attempt == 1:
        raise OSError


def test_a_failing_task_is_no_failure_of_the_test_clients_call(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> str:
        tasks.add_task(divides, 0)
        tasks.add_task(note, "next")
        return "ok"

    assert TestClient(app).post("/").json() == "ok"
    assert events() == ["next"]
    assert "ZeroDivisionError" in caplog.text


def divides(number: int) -> None:
    print(1 / number)


def test_a_delayed_call_does_not_hold_up_a_test() -> None:
    app = FastAPI()
    Segundo(app, status="/tasks")

    @app.post("/")
    async def endpoint(tasks: segundo.BackgroundTasks) -> Any:
        return tasks.accepted(tasks.add_task(declared.options(delay=3600), "late"))

    with TestClient(app) as client:
        location = client.post("/").headers["location"]
        assert client.get(location).json()["state"] == "queued"
    assert events() == []


def test_a_websocket_of_the_test_client_runs_its_calls_before_it_is_left() -> None:
    app = FastAPI()
    Segundo(app)

    @app.websocket("/")
    async def endpoint(socket: fastapi.WebSocket, tasks: BackgroundTasks) -> None:
        await socket.accept()
        tasks.add_task(note, "task")
        await socket.send_text("added")
        await socket.close()

    with TestClient(app) as client, client.websocket_connect("/") as socket:
        assert socket.receive_text() == "added"
    assert events() == ["task"]


@pytest.mark.parametrize("entered", [True, False], ids=["with", "without with"])
def test_on_trio_it_says_that_it_needs_asyncio(entered: bool) -> None:
    client = TestClient(make_app(), backend="trio")
    start = client.__enter__ if entered else lambda: client.post("/")
    with pytest.raises(ConfigurationError, match="runs on asyncio"):
        start()


async def test_a_client_that_calls_itself_testclient_is_no_test_client() -> None:
    async with calling(make_app(), client=("testclient", 50000)) as client:
        await client.post("/")
        await ended(2)
    assert LEDGER.exists()


def test_what_a_dependency_adds_at_its_exit_has_run_when_the_test_clients_call_returns() -> None:
    app = FastAPI()
    Segundo(app)

    def exits(tasks: BackgroundTasks) -> Generator[None]:
        yield
        tasks.add_task(note, "recorded")
        tasks.add_task(lambda: note("in process"))

    @app.post("/", dependencies=[Depends(exits)])
    def endpoint() -> None: ...

    with TestClient(app) as client:
        client.post("/")
        assert sorted(events()) == ["in process", "recorded"]
