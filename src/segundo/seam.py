"""The FastAPI seam: FastAPI's BackgroundTasks parameter receives ours, and each request tells us its end.

FastAPI makes its object deep inside `solve_dependencies`, whose parameter `background_tasks` it never uses
itself. `fastapi.routing` is given a wrapper of that function which passes ours, and hangs three callbacks on
the request's own two exit stacks, so that what FastAPI promises about their order holds for us:

    function stack, first in, last out   the endpoint and its function-scoped dependencies are over: record
    request stack, last in, first out    the last byte is sent, sessions are open: run what is in process
    request stack, first in, last out    request-scoped dependencies are over too: release
"""

import functools
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol

import fastapi
import fastapi.routing
from starlette.applications import Starlette

from segundo import shape
from segundo.shape import FUNCTION_STACK, REQUEST_STACK

PLACE = "_segundo_place"  # where an app keeps its Place, and the scope of a request that of the app around
# Marks our wrapper: others put theirs below or around it (test_tools_that_wrap_the_same_function_keep_ours).
OURS = "_segundo_wraps"
# Stands for the endpoint where `app.frontend` serves files, which it sends before the function stack ends.
FRONTEND = getattr(fastapi.routing, "_frontend_dependency_endpoint", NotImplemented)
MOST_ROUTES = 10_000  # answers kept about routes; more means that something makes new ones all the time

Exit = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


class RequestTasks(Protocol):
    """The background tasks of one request: what the seam calls, and when."""

    async def on_function_exit(self, kind: Any, error: BaseException | None, trace: Any) -> None: ...
    async def on_early_answer(self) -> None: ...
    async def on_response_sent(self, kind: Any, error: BaseException | None, trace: Any) -> None: ...
    async def on_request_exit(self, kind: Any, error: BaseException | None, trace: Any) -> None: ...


class Desk(Protocol):
    """Who begins the request side of a request or WebSocket."""

    def begin(self, request: Any) -> RequestTasks | None:
        """The request side; None while there is nothing to begin it with: then `start`, and ask again."""
        ...

    async def start(self, request: Any) -> RequestTasks:
        """Start what the lifespan did not, and begin."""
        ...


class Place:
    """One app's place at the seam: who begins its requests, and what is known of its routes."""

    def __init__(self, desk: Desk, *, inject: bool = True) -> None:
        self.desk = desk
        self.inject = inject
        # A Dependant has no room for a mark and no weak reference: its answer is kept under its address.
        self._answers: dict[int, tuple[Any, bool]] = {}

    def concerns(self, dependant: Any) -> bool:
        """Whether the route or a dependency has the parameter. An override might, so any counts as one."""
        known = self._answers.get(id(dependant))
        if known is None or known[0] is not dependant:
            if len(self._answers) >= MOST_ROUTES:
                self._answers.clear()
            known = self._answers[id(dependant)] = dependant, _has_parameter(dependant)
        return known[1]


def install(app: object, desk: Desk, *, inject: bool = True) -> Place:
    """From now on, requests of `app` get our background tasks. ConfigurationError on an unknown FastAPI.

    Unless `inject` is False: then they get them by `BackgroundTasks(request)` alone, and FastAPI is left as
    it is.

    So do those of FastAPI apps anywhere below it that have no place of their own: the edge puts the place
    that is returned in each request's scope, under PLACE.
    """
    routing: Any = fastapi.routing  # the name is private, so its module does not export it to type checkers
    if inject and not hasattr(getattr(routing, "solve_dependencies", None), OURS):
        shape.check()
        routing.solve_dependencies = _wrap(routing.solve_dependencies)
    place = Place(desk, inject=inject)
    if isinstance(app, Starlette):
        setattr(app, PLACE, place)  # with the app, so that it goes with the app
    return place


def installed(app: object) -> bool:
    return hasattr(app, PLACE)


def _wrap(original: Callable[..., Coroutine[Any, Any, Any]]) -> Any:
    @functools.wraps(original)
    def solve_dependencies(**given: Any) -> Coroutine[Any, Any, Any]:
        request = given["request"]
        app = request.scope.get("app")
        place: Place | None = getattr(app, PLACE, None) or request.scope.get(PLACE)
        if place is None or not place.inject:
            return original(**given)
        overrides = getattr(app, "dependency_overrides", None)  # a Starlette app, whose task it is, has none
        if not (overrides or place.concerns(given["dependant"])):
            return original(**given)
        if "background_tasks" in given:  # by a wrapper of ours around one that hides our mark
            return original(**given)
        ours = place.desk.begin(request)
        if ours is None or given["dependant"].dependencies or overrides:
            return _solve(original, place.desk, ours, given)
        # Nothing of the app's lies between our exits of the request stack: the last can do it all.
        given["background_tasks"] = ours
        request.scope[REQUEST_STACK].push_async_exit(ours.on_request_exit)
        request.scope[FUNCTION_STACK].push_async_exit(ours.on_function_exit)
        return original(**given)

    setattr(solve_dependencies, OURS, True)
    return solve_dependencies


async def _solve(original: Any, desk: Desk, ours: RequestTasks | None, given: dict[str, Any]) -> Any:
    request = given["request"]
    if ours is None:
        ours = await desk.start(request)
    given["background_tasks"] = ours
    request_stack = request.scope[REQUEST_STACK]
    request_stack.push_async_exit(ours.on_request_exit)
    request.scope[FUNCTION_STACK].push_async_exit(ours.on_function_exit)
    solved = await original(**given)
    request_stack.push_async_exit(ours.on_response_sent)
    if given["dependant"].call is FRONTEND and not solved.errors:
        await ours.on_early_answer()
    return solved


def _has_parameter(dependant: Any) -> bool:
    return bool(dependant.background_tasks_param_name) or any(map(_has_parameter, dependant.dependencies))
