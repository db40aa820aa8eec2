"""Whoever asks for background tasks in an app with a `Segundo` gets ours, one object for each request."""

from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any

import fastapi
import pytest
import starlette.background
from fastapi import APIRouter, Depends, FastAPI, Security
from fastapi.testclient import TestClient

import segundo
from segundo import BackgroundTasks, Segundo
from tests.web.apps import ended, records, running
from tests.web.tasks import events, note

KINDS = [
    pytest.param(fastapi.BackgroundTasks, id="fastapi"),
    pytest.param(segundo.BackgroundTasks, id="segundo"),
    pytest.param(starlette.background.BackgroundTasks, id="starlette"),
]


class Seen:
    """The objects that one request was given, by who asked."""

    def __init__(self) -> None:
        self.by: dict[str, Any] = {}

    def one(self) -> BackgroundTasks:
        """The one object that all were given."""
        (found,) = {id(tasks): tasks for tasks in self.by.values()}.values()
        assert isinstance(found, BackgroundTasks)
        return found


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_operation_and_all_kinds_of_dependencies_share_one_object(kind: Any, seen: Seen) -> None:
    app = FastAPI()
    Segundo(app)

    def deepest(tasks: kind) -> None:
        seen.by["sub-dependency"] = tasks

    async def asynchronous(tasks: kind, _: Annotated[None, Depends(deepest)]) -> None:
        seen.by["async dependency"] = tasks

    async def yielding(tasks: kind) -> AsyncGenerator[None]:
        seen.by["yield dependency"] = tasks
        yield

    async def function_scoped(tasks: kind) -> AsyncGenerator[None]:
        seen.by["function-scoped dependency"] = tasks
        yield

    def secured(tasks: kind) -> None:
        seen.by["security"] = tasks

    class Class:
        def __init__(self, tasks: kind, q: str = "") -> None:
            seen.by["class dependency"] = tasks

    class Instance:
        def __call__(self, tasks: kind) -> None:
            seen.by["callable dependency"] = tasks

    @app.get("/{number}")
    async def endpoint(
        number: int,
        tasks: kind,
        a: Annotated[None, Depends(asynchronous)],
        b: Annotated[None, Depends(yielding)],
        c: Annotated[None, Depends(function_scoped, scope="function")],
        d: Annotated[None, Security(secured, scopes=["any"])],
        e: Annotated[Class, Depends()],
        f: Annotated[None, Depends(Instance())],
        g: str = "",
    ) -> None:
        seen.by["operation"] = tasks

    async with running(app) as client:
        assert (await client.get("/1")).status_code == 200
        assert len(seen.by) == 8
        first = seen.one()
        seen.by.clear()
        await client.get("/2")
        assert seen.one() is not first


@pytest.mark.parametrize("kind", KINDS)
async def test_annotated_with_metadata_is_accepted(kind: Any, seen: Seen) -> None:
    app = FastAPI()
    Segundo(app)

    @app.get("/")
    def endpoint(tasks: Annotated[kind, "to send mail"]) -> None:
        seen.by["operation"] = tasks

    async with running(app) as client:
        await client.get("/")
    assert seen.one()


async def test_dependencies_of_the_app_of_routers_and_of_routes_are_given_it_too(seen: Seen) -> None:
    def named(name: str) -> Any:
        def dependency(tasks: fastapi.BackgroundTasks) -> None:
            seen.by[name] = tasks
            tasks.add_task(note, name)

        return Depends(dependency)

    app = FastAPI(dependencies=[named("app")])
    inner = APIRouter(prefix="/inner", dependencies=[named("inner router")])
    outer = APIRouter(prefix="/outer", dependencies=[named("outer router")])

    @inner.get("/", dependencies=[named("route")])
    def endpoint() -> None: ...

    outer.include_router(inner, dependencies=[named("inclusion")])
    app.include_router(outer)
    Segundo(app)
    async with running(app) as client:
        assert (await client.get("/outer/inner/")).status_code == 200
        await ended(5)
    assert set(seen.by) == {"app", "inner router", "outer router", "route", "inclusion"}
    assert len(seen.one().tasks) == 5
    assert events()[0] == "app"


@pytest.mark.parametrize("when", ["before the routes", "after the routes"])
async def test_it_does_not_matter_whether_the_segundo_or_the_routes_come_first(when: str, seen: Seen) -> None:
    app = FastAPI()
    if when == "before the routes":
        Segundo(app)

    @app.get("/")
    def endpoint(tasks: fastapi.BackgroundTasks) -> None:
        seen.by["operation"] = tasks

    if when == "after the routes":
        Segundo(app)
    async with running(app) as client:
        await client.get("/")
    assert seen.one()


async def test_an_override_that_brings_background_tasks_is_given_ours(seen: Seen) -> None:
    app = FastAPI()
    Segundo(app)

    def without() -> None: ...

    def overriding(tasks: fastapi.BackgroundTasks) -> None:
        seen.by["override"] = tasks
        tasks.add_task(note, "override")

    @app.get("/", dependencies=[Depends(without)])
    def endpoint() -> None: ...

    async with running(app) as client:
        await client.get("/")
        assert not seen.by
        app.dependency_overrides[without] = overriding
        await client.get("/")
        await ended(1)
        app.dependency_overrides.clear()
        await client.get("/")
    assert seen.one()
    assert events() == ["override"]


async def test_an_override_that_takes_the_background_tasks_away_leaves_a_route_that_works() -> None:
    app = FastAPI()
    Segundo(app)

    def using(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "not this")

    @app.get("/", dependencies=[Depends(using)])
    def endpoint() -> str:
        return "ok"

    app.dependency_overrides[using] = lambda: None
    async with running(app) as client:
        assert (await client.get("/")).json() == "ok"
    assert records() == []


async def test_a_dependency_that_returns_the_object_is_annotated_with_it(seen: Seen) -> None:
    app = FastAPI()
    Segundo(app)

    def provide(tasks: fastapi.BackgroundTasks) -> fastapi.BackgroundTasks:
        seen.by["dependency"] = tasks
        return tasks

    def endpoint(tasks: Annotated[BackgroundTasks, Depends(provide)]) -> None:
        seen.by["operation"] = tasks
        tasks.add_task(note, "task")

    try:
        app.get("/")(endpoint)
    except AssertionError as refusal:
        pytest.skip(f"an older FastAPI itself refuses it: {refusal}")
    async with running(app) as client:
        await client.get("/")
        await ended(1)
    assert seen.one()


def websocket_app(seen: Seen, kind: Any) -> FastAPI:
    app = FastAPI()
    Segundo(app)

    def dependency(tasks: kind) -> None:
        seen.by["dependency"] = tasks

    @app.websocket("/")
    async def endpoint(
        socket: fastapi.WebSocket, tasks: kind, _: Annotated[None, Depends(dependency)]
    ) -> None:
        seen.by["operation"] = tasks
        await socket.accept()
        await socket.close()

    return app


@pytest.mark.parametrize("kind", KINDS)
def test_a_websocket_endpoint_and_its_dependencies_share_one_object(kind: Any, seen: Seen) -> None:
    with TestClient(websocket_app(seen, kind)) as client, client.websocket_connect("/"):
        pass
    assert set(seen.by) == {"dependency", "operation"}
    assert seen.one()


async def test_tasks_stays_a_list_of_what_was_added_each_callable_as_starlettes_are(seen: Seen) -> None:
    app = FastAPI()
    Segundo(app)

    @app.get("/")
    async def endpoint(tasks: fastapi.BackgroundTasks) -> None:
        seen.by["operation"] = tasks
        tasks.add_task(
            note,
            "recorded",
        )
        tasks.add_task(lambda: note("in process"))
        first, second = tasks.tasks
        assert isinstance(first, starlette.background.BackgroundTask)
        assert (first.func, first.args, first.kwargs, first.is_async) == (note, ("recorded",), {}, False)
        assert isinstance(second, starlette.background.BackgroundTask)
        await first()  # whoever calls one of them runs its function, as with Starlette's

    async with running(app) as client:
        await client.get("/")
        await ended(1)
    assert events() == ["recorded", "in process", "recorded"]


async def test_options_are_no_keyword_arguments_so_a_task_may_have_any(seen: Seen) -> None:
    app = FastAPI()
    Segundo(app)

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(takes_odd_names, func="f", self="s", key="k", delay=1, queue="q")
        tasks.add_task(func=takes_odd_names, self="by keyword")

    async with running(app) as client:
        await client.get("/")
        await ended(2)
    assert events() == ["f s k 1 q", "None by keyword None None None"]


def takes_odd_names(
    func: str | None = None,
    self: str | None = None,
    key: str | None = None,
    delay: int | None = None,
    queue: str | None = None,
) -> None:
    note(f"{func} {self} {key} {delay} {queue}")


@pytest.mark.parametrize("call", [lambda tasks: tasks.add_task(), lambda tasks: tasks.add_task(x=1)])
async def test_a_call_without_a_function_is_refused_on_its_line(call: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match="needs a function"):
        call(BackgroundTasks())
