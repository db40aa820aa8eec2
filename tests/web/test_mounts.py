"""Apps below apps, routers in routers, and what their lifespans make of it."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import fastapi
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount, Router
from starlette.types import Receive, Scope, Send

import segundo
from segundo import Segundo
from tests.web.apps import calling, ended, messages, records, running, served_client
from tests.web.tasks import declared, events, note


def adds(name: str) -> Callable[..., Any]:
    async def endpoint(tasks: BackgroundTasks) -> str:
        tasks.add_task(declared, name)
        return type(tasks).__module__

    return endpoint


def app_below() -> FastAPI:
    below = FastAPI()
    below.post("/")(adds("below"))
    return below


def mounted(app: FastAPI, below: FastAPI) -> None:
    app.mount("/below", below)


def mounted_in_a_router_that_is_included(app: FastAPI, below: FastAPI) -> None:
    router = APIRouter(routes=[Mount("/below", below)])
    app.include_router(router)


def mounted_with_middleware(app: FastAPI, below: FastAPI) -> None:
    app.router.routes.append(Mount("/below", below, middleware=[Middleware(GZipMiddleware)]))


def mounted_within_middleware(app: FastAPI, below: FastAPI) -> None:
    app.mount("/below", GZipMiddleware(below))


def below_a_starlette_app(app: FastAPI, below: FastAPI) -> None:
    app.mount("/", Starlette(routes=[Mount("/below", below)]))


def below_a_router(app: FastAPI, below: FastAPI) -> None:
    app.mount("/", Router(routes=[Mount("/below", below)]))


def below_a_host(app: FastAPI, below: FastAPI) -> None:
    app.host("app", Router([Mount("/below", below)]))


def behind_a_function(app: FastAPI, below: FastAPI) -> None:
    async def hides(scope: Scope, receive: Receive, send: Send) -> None:
        await below(scope, receive, send)

    app.mount("/below", hides)


PLACES = [
    behind_a_function,
    mounted,
    mounted_with_middleware,
    mounted_within_middleware,
    below_a_starlette_app,
    below_a_router,
    below_a_host,
]


@pytest.mark.parametrize("place", PLACES)
async def test_a_fastapi_app_below_is_given_background_tasks_wherever_it_is(
    place: Callable[..., None],
) -> None:
    app = FastAPI()
    Segundo(app)
    place(app, app_below())
    async with running(app) as client:
        assert (await client.post("/below/")).json() == "segundo.request"
        await ended(1)
    assert events() == ["below"]


async def test_a_fastapi_app_in_an_included_router_is_given_them_where_fastapi_serves_it() -> None:
    app = FastAPI()
    Segundo(app)
    mounted_in_a_router_that_is_included(app, app_below())
    async with running(app) as client:
        answer = await client.post("/below/")
        if answer.status_code == 404:
            pytest.skip(f"FastAPI {fastapi.__version__} serves no mounts of included routers")
        assert answer.json() == "segundo.request"
        await ended(1)
    assert events() == ["below"]


async def test_an_app_that_is_mounted_twice_serves_both_places() -> None:
    app, below = FastAPI(), app_below()
    Segundo(app)
    app.mount("/one", below)
    app.mount("/two", below)
    async with running(app) as client:
        for number, place in enumerate(["/one/", "/two/"]):
            assert (await client.post(place)).json() == "segundo.request"
            await ended(number + 1)
    assert events() == ["below", "below"]


async def test_an_app_that_is_mounted_while_its_parent_runs_is_given_background_tasks_too() -> None:
    app = FastAPI()
    Segundo(app)
    async with running(app) as client:
        app.mount("/below", app_below())
        assert (await client.post("/below/")).json() == "segundo.request"
        await ended(1)


async def test_an_app_that_is_also_served_by_itself_is_fastapis_own_there() -> None:
    app, below = FastAPI(), app_below()
    Segundo(app)
    app.mount("/below", below)
    async with running(app) as client, calling(below) as alone:
        assert (await client.post("/below/")).json() == "segundo.request"
        assert (await alone.post("/")).json() == "fastapi.background"


async def test_an_app_that_is_mounted_in_itself_works() -> None:
    app = app_below()
    Segundo(app)
    app.mount("/again", app)
    async with running(app) as client:
        assert (await client.post("/again/")).json() == "segundo.request"
        await ended(1)


async def test_the_overrides_of_an_app_below_are_its_own() -> None:
    app, below = FastAPI(), FastAPI()
    Segundo(app)

    def nothing() -> None: ...

    def overriding(tasks: BackgroundTasks) -> None:
        tasks.add_task(note, "override")

    below.get("/", dependencies=[Depends(nothing)])(lambda: None)
    app.mount("/below", below)
    async with running(app) as client:
        below.dependency_overrides[nothing] = overriding
        await client.get("/below/")
        await ended(1)
    assert events() == ["override"]


async def test_an_app_whose_parent_has_no_segundo_and_runs_no_lifespan_of_it_starts_at_its_first_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    parent, below = FastAPI(), app_below()
    seg = Segundo(below)
    parent.post("/")(adds("parent"))
    parent.mount("/below", below)
    async with running(parent) as client:
        assert (await client.post("/")).json() == "fastapi.background"
        assert (records(), events()) == ([], ["parent"])
        for number in range(2):
            assert (await client.post("/below/")).json() == "segundo.request"
            await ended(number + 1)
    await seg._life.close()
    (warning,) = messages(caplog)
    assert "the app's lifespan did not run" in warning
    assert events() == ["parent", "below", "below"]


# Routers


def diary(name: str) -> Any:
    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncGenerator[dict[str, str]]:
        note(f"{name} starts")
        yield {name: f"{name}'s"}
        note(f"{name} stops")

    return lifespan


@pytest.mark.parametrize("first", ["the routers", "the Segundo"])
async def test_lifespans_of_the_app_and_of_routers_in_routers_run_around_the_tasks(first: str) -> None:
    app = FastAPI(lifespan=diary("app"))
    inner, outer = APIRouter(lifespan=diary("inner")), APIRouter(lifespan=diary("outer"))

    @inner.post("/{name}")
    async def endpoint(request: fastapi.Request, name: str, tasks: BackgroundTasks) -> list[str]:
        tasks.add_task(note, name)
        return [request.state.app, request.state.inner, request.state.outer]

    if first == "the Segundo":
        Segundo(app)
    outer.include_router(inner, prefix="/inner")
    app.include_router(outer, prefix="/outer")
    if first == "the routers":
        Segundo(app)
    async with served_client(app) as client:
        assert (await client.post("/outer/inner/task")).json() == ["app's", "inner's", "outer's"]
        await ended(1)
    assert events()[0] == "app starts"
    assert set(events()[1:3]) == {"inner starts", "outer starts"}
    assert events()[3] == "task"
    assert events()[-1] == "app stops"


async def test_dependencies_of_routers_in_routers_add_to_one_list_in_the_order_that_they_are_solved() -> None:
    def named(name: str) -> Any:
        def dependency(tasks: BackgroundTasks) -> None:
            tasks.add_task(note, name)

        return Depends(dependency)

    app = FastAPI(dependencies=[named("app")])
    inner = APIRouter(dependencies=[named("inner")])
    outer = APIRouter(dependencies=[named("outer")])
    inner.post("/", dependencies=[named("route")])(adds_plainly)
    outer.include_router(inner, prefix="/inner", dependencies=[named("inclusion")])
    app.include_router(outer, prefix="/outer")
    Segundo(app)
    async with running(app) as client:
        assert (await client.post("/outer/inner/")).status_code == 200
        await ended(6)
    assert events()[0] == "app"
    assert events()[-2:] == ["route", "endpoint"]


async def adds_plainly(tasks: segundo.BackgroundTasks) -> None:
    tasks.add_task(note, "endpoint")


async def test_a_router_that_is_included_twice_and_one_included_while_the_app_runs_work_too() -> None:
    app, router = FastAPI(), APIRouter()
    Segundo(app)
    router.post("/")(adds_plainly)
    app.include_router(router, prefix="/one")
    app.include_router(router, prefix="/two")
    async with running(app) as client:
        app.include_router(router, prefix="/three")
        for number, place in enumerate(["/one/", "/two/", "/three/"]):
            assert (await client.post(place)).status_code == 200
            await ended(number + 1)


async def test_a_custom_route_class_and_a_custom_request_keep_their_tasks() -> None:
    class Route(fastapi.routing.APIRoute):
        def get_route_handler(self) -> Callable[..., Any]:
            handler = super().get_route_handler()

            async def noted(request: fastapi.Request) -> fastapi.Response:
                answer = await handler(fastapi.Request(dict(request.scope), request.receive))
                answer.headers["x-route"] = "custom"
                return answer

            return noted

    app, router = FastAPI(), APIRouter(route_class=Route)
    Segundo(app)
    router.post("/")(adds_plainly)
    app.include_router(router)
    async with running(app) as client:
        assert (await client.post("/")).headers["x-route"] == "custom"
        await ended(1)
    assert events() == ["endpoint"]
