"""Apps of each kind: how a Segundo is put around those of FastAPI and Starlette, and around raw ASGI apps."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from types import new_class
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from segundo import seam
from segundo.errors import ConfigurationError

logger = logging.getLogger("segundo")

EDGE = "_segundo_edge"  # where an app keeps what is around it
KINDS = 256  # classes of apps that are remembered; more means that something makes new ones all the time


def check(app: object) -> None:
    """Raise ConfigurationError if no Segundo can be made for `app`, or not now."""
    if not callable(app) or isinstance(app, type):
        raise ConfigurationError(
            f"Segundo(app) takes a FastAPI app, a Starlette app or another ASGI app, not {type(app).__name__}"
        )
    if seam.installed(app):
        raise ConfigurationError("this app already has a Segundo; make one, and import it where you need it")
    if isinstance(app, Starlette) and app.middleware_stack is not None:
        raise ConfigurationError("this app has started already: make its Segundo beside it, before that")


def put_around(app: ASGIApp, edge: Callable[[ASGIApp], ASGIApp]) -> ASGIApp:
    """Put the edge around everything of the app; what the server is to call.

    Around the app's own `__call__`: its stack of middleware is taken apart, filled and built again by tools
    (test_opentelemetry_is_put_in_and_taken_out_again_and_the_edge_stays).
    """
    if not isinstance(app, Starlette):
        return edge(ExceptionMiddleware(_Living(app)))  # which makes answers of HTTPExceptions
    this: Any = app
    kind = this.__class__
    inside: ASGIApp = lambda scope, receive, send: kind.__call__(app, scope, receive, send)  # noqa: E731  # short
    setattr(app, EDGE, edge(inside))
    this.__class__ = _edged(kind)
    return app


@lru_cache(KINDS)
def _edged(kind: Any) -> type:
    """The same class of app, which calls the edge. A call looks at the class only, never at the object."""

    async def call(self: Starlette, scope: Scope, receive: Receive, send: Send) -> None:
        await getattr(self, EDGE)(scope, receive, send)

    named = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    return new_class(kind.__name__, (kind,), exec_body=lambda body: body.update(named, __call__=call))


def within(outer: Lifespan[Any], inner: Lifespan[Any]) -> Lifespan[Any]:
    """Both lifespans in one. (An included router joins its own too; every request then looks through it.)"""

    @asynccontextmanager
    async def both(app: Any) -> AsyncGenerator[Any]:
        async with outer(app) as state, inner(app):
            yield state

    return both


def add_routes(app: ASGIApp, router: APIRouter) -> None:
    """Serve FastAPI's routes of a router, whichever kind of app has routes."""
    if isinstance(app, FastAPI):
        app.include_router(router)
    elif isinstance(app, Starlette):
        inner = FastAPI(openapi_url=None)
        inner.state = app.state
        inner.include_router(router)
        paths = dict.fromkeys(route.path for route in router.routes if isinstance(route, APIRoute))
        app.router.routes[:0] = [Route(path, inner) for path in paths]
    else:
        raise ConfigurationError(
            'status=… needs an app with routes: Segundo(Starlette(routes=[Mount("/", your_app)]), status=…)'
        )


class _Living:
    """A raw ASGI app, with a start-up and a shutdown though it may know neither.

    One that raises before it has said anything of its start-up does not speak the lifespan protocol.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        serve = self._live if scope["type"] == "lifespan" else self._app
        return serve(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        heard: list[str] = []
        said: list[str] = []

        async def hears() -> Message:
            message = await receive()
            heard.append(message["type"])
            return message

        async def says(message: Message) -> None:
            said.append(message["type"])
            await send(message)

        try:
            await self._app(scope, hears, says)
        except Exception as error:
            if said:
                raise
            logger.info("the app does not speak the lifespan protocol, Segundo does: %r", error)
        if not said:
            await _start_and_stop(heard, receive, send)


async def _start_and_stop(heard: list[str], receive: Receive, send: Send) -> None:
    for step in ("lifespan.startup", "lifespan.shutdown"):
        if step not in heard:
            await receive()
        await send({"type": f"{step}.complete"})
