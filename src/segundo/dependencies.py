"""`Depends` in tasks: FastAPI itself injects, as it does for endpoints.

Each task that has injected parameters gets a small FastAPI app of its own, in memory, with one route whose
endpoint has just these parameters; to run the task is to send that route one request. So `yield`, caching,
scopes, sub-dependencies and overrides are FastAPI's own, by its public interface only.
"""

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar
from inspect import Parameter
from typing import Any, NamedTuple, NoReturn, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security.base import SecurityBase
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segundo.context import current
from segundo.errors import DeclarationError
from segundo.injection import depends_in
from segundo.signature import Signature
from segundo.task import Task
from segundo.task_request import TaskRequest

Call = Callable[[dict[str, Any]], Awaitable[Any]]

ATTEMPT = "segundo.attempt"  # in the scope of a request that is an attempt

# What a dependency may read from a request, by FastAPI's name for it; a task has no request.
DATA = {
    "path_params": "path",
    "query_params": "query",
    "header_params": "headers",
    "cookie_params": "cookies",
    "body_params": "body",
}


class Dependencies:
    """Injects into the tasks of one app.

    `app`: the user's, whose overrides and state count. `state`: gives what its lifespan yielded.
    """

    def __init__(self, app: Any, state: Callable[[], Mapping[str, Any]]) -> None:
        self._app = app
        self._state = state
        self._inner: dict[Callable[..., Any], Inner] = {}

    def check(self, task: Task) -> None:
        """Raise DeclarationError if a dependency of the task needs what only a request has."""
        if task.arguments.injected:
            self._of(task)

    async def call(self, task: Task, call: Call) -> Any:
        """What `call` returns, given the injected values by name; their exit code has run by then.

        What `call` raises, or a dependency, comes out as it is; a cancellation reaches both. Nothing is kept
        from one call to the next.
        """
        attempt = _Attempt(call, [])
        token = _attempt.set(attempt)
        try:
            await self._of(task)(self._scope(), _receive, _send)
        finally:
            _attempt.reset(token)
        return attempt.results[0]

    def _of(self, task: Task) -> "Inner":
        inner = self._inner.get(task.function)
        if inner is None:
            inner = self._inner[task.function] = Inner(self._app, task)
        return inner

    def _scope(self) -> Scope:
        return {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
            "method": "POST", "scheme": "http", "path": "/", "raw_path": b"/", "query_string": b"",
            "root_path": "", "headers": [], "server": ("task", 0), "client": ("task", 0),
            "state": dict(self._state()), ATTEMPT: True,
        }  # fmt: skip


class _Attempt(NamedTuple):
    call: Call
    results: list[Any]


# The request of a task carries nothing, since all that it could carry is in this.
_attempt: ContextVar[_Attempt] = ContextVar("segundo.dependencies")


class Inner(FastAPI):
    """The app of one task."""

    def __init__(self, outer: Any, task: Task) -> None:
        self._outer = outer
        quiet = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False}
        has_telemetry = "telemetry" in inspect.signature(FastAPI.__init__).parameters
        options: dict[str, Any] = {"telemetry": quiet} if has_telemetry else {}
        super().__init__(openapi_url=None, **options)
        self.state = getattr(outer, "state", self.state)  # a raw ASGI app has none
        for kind in (HTTPException, RequestValidationError):
            self.add_exception_handler(kind, _raise)
        self.add_middleware(_As, outer=outer)
        self.router.route_class = _Route
        self.add_api_route("/", _endpoint(task), methods=["POST"], response_model=None)
        (route,) = (route for route in self.routes if isinstance(route, APIRoute))
        _check(route.dependant, task.function.__qualname__)

    @property
    def dependency_overrides(self) -> dict[Callable[..., Any], Callable[..., Any]]:
        """The user's, as they are now: tests change them, and put others in their place."""
        overrides: dict[Callable[..., Any], Callable[..., Any]] = getattr(
            self._outer, "dependency_overrides", {}
        )  # Starlette has none
        return overrides

    @dependency_overrides.setter
    def dependency_overrides(  # pyright: ignore[reportIncompatibleVariableOverride]  # FastAPI's is an attribute
        self, _: Any
    ) -> None:
        """FastAPI begins with none of its own."""


class _Route(APIRoute):
    """Gives dependencies the request of a task, in the way that FastAPI has for requests of one's own."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_task(request: Request) -> Response:
            return await handle(TaskRequest(request.scope, request.receive))

        return handle_task


class _As:
    """`request.app` is the user's app."""

    def __init__(self, app: ASGIApp, outer: Any) -> None:
        self._app = app
        self._outer = outer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["app"] = self._outer
        await self._app(scope, receive, send)


class _Nothing(Response):
    """Sends nothing: so no exception comes after an answer, which would hide it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What the task returned is elsewhere. What a dependency added to FastAPI's BackgroundTasks, given
        to it where ours is not (inject=False), are child calls all the same.
        """
        for task in getattr(self.background, "tasks", ()):
            current().add_task(task.func, *task.args, **task.kwargs)


def _endpoint(task: Task) -> Callable[..., Awaitable[Response]]:
    """What FastAPI takes for the endpoint: a function with the injected parameters alone."""

    async def endpoint(**injected: Any) -> Response:
        attempt = _attempt.get()
        attempt.results.append(await attempt.call(injected))
        return _Nothing()

    signature, this = Signature(task.function), cast("Any", endpoint)
    this.__name__, this.__qualname__ = task.function.__name__, task.function.__qualname__
    this.__signature__ = inspect.Signature(
        [_parameter(signature, name) for name in signature.parameters if name in task.arguments.injected]
    )
    return endpoint


def _parameter(signature: Signature, name: str) -> Parameter:
    annotation, parameter = signature.annotation(name), signature.parameters[name]
    # With Annotated, a default is the caller's; FastAPI takes none.
    default = Parameter.empty if depends_in(annotation) is not None else parameter.default
    if not hasattr(default, "dependency"):
        default = Parameter.empty
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _check(dependant: Any, task: str) -> None:
    """A dependant is FastAPI's description of a callable: what it reads, and what it depends on."""
    if isinstance(dependant.call, SecurityBase):
        _refuse(task, type(dependant.call).__name__, "the credentials")
    name = getattr(dependant.call, "__qualname__", type(dependant.call).__qualname__)
    for kind, where in DATA.items():
        for field in getattr(dependant, kind):
            _refuse(task, f"{name}()", f"{field.alias!r} from the {where}")
    if getattr(dependant, "websocket_param_name", None):
        _refuse(task, f"{name}()", "the WebSocket")
    for each in dependant.dependencies:
        _check(each, task)


def _refuse(task: str, who: str, what: str) -> NoReturn:
    raise DeclarationError(
        f"{task}() depends on {who}, which reads {what} of a request: a task has none when it runs; pass the "
        "value as an argument"
    )


async def _raise(_: Any, error: Exception) -> Any:
    raise error


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(_: Message) -> None:
    """Nobody listens."""
