"""`BackgroundTasks`: the object that endpoints add calls to. With a `Segundo`, each call becomes a record."""

import functools
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping, Sequence
from contextvars import copy_context
from typing import Any, ParamSpec, Protocol, Self, TypeVar, cast, overload

import starlette.background
from fastapi import BackgroundTasks as FastAPIBackgroundTasks
from starlette.responses import Response

from segundo.edge import desk_of
from segundo.errors import ConfigurationError
from segundo.handle import Handle
from segundo.options import Configured
from segundo.record import Call
from segundo.signature import name_of

P = ParamSpec("P")
R = TypeVar("R")
ResponseT = TypeVar("ResponseT", bound=Response)

NOT_GIVEN: Any = object()


class BackgroundTask(starlette.background.BackgroundTask):
    """One function to call after the response: Starlette's own, and it may pass on a keyword `func`."""

    def __init__(self, func: Callable[P, Any] = NOT_GIVEN, /, *args: P.args, **kwargs: P.kwargs) -> None:
        super().__init__(_function(func, kwargs), *args)
        if "func" in kwargs and not self.is_async:  # Starlette's threads take no keyword of that name
            function: Callable[..., Any] = self.func
            self.func = functools.update_wrapper(functools.partial(function, **kwargs), function)
        else:
            self.kwargs.update(kwargs)


class Recorded(starlette.background.BackgroundTask):
    """A call that is, or is about to be, in the ledger; in `.tasks` it stands like any other."""

    def __init__(
        self, call: Call, is_async: bool, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        this: Any = self  # not by Starlette's __init__, which finds out each time whether `func` is async
        this.func, this.args, this.kwargs, this.is_async = func, args, kwargs, is_async
        self.call = call
        self.handle: Handle[Any] = Handle(call.id)


class HasScope(Protocol):
    """A request or WebSocket; or the `Segundo` of a raw ASGI app, which knows the one that is served here."""

    @property
    def scope(self) -> MutableMapping[str, Any]: ...


class BackgroundTasks(FastAPIBackgroundTasks):
    """Calls to make after the response: FastAPI's own object, and in an app with a `Segundo` a durable one.

    There, `add_task` returns a handle, and every call that can be written down is in the ledger before the
    client sees the first byte. Without a `Segundo` it does exactly what FastAPI's does.

    FastAPI gives it to endpoints and dependencies. Elsewhere, as in a Starlette endpoint, it is made from the
    request, `BackgroundTasks(request)`, and `recorded` records its calls. `BackgroundTasks()` and
    `BackgroundTasks([task, …])` are Starlette's own.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        scope = getattr(args[0], "scope", None) if args and cls is BackgroundTasks else None
        made: Any = cls if scope is None else desk_of(scope).kind_of_tasks(scope)
        new: Self = super().__new__(made)  # Python goes on with the __init__ of its class
        return new

    def __init__(
        self, tasks: "Sequence[starlette.background.BackgroundTask] | HasScope | None" = None
    ) -> None:
        super().__init__(cast("Sequence[starlette.background.BackgroundTask] | None", tasks))

    @overload  # type: ignore[override]  # Starlette's returns None
    def add_task(
        self, func: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> "Handle[R]": ...
    @overload
    def add_task(self, func: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> "Handle[R]": ...
    @overload
    def add_task(self, /, *, func: Callable[..., Coroutine[Any, Any, R]], **kwargs: Any) -> "Handle[R]": ...
    @overload
    def add_task(self, /, *, func: Callable[..., R], **kwargs: Any) -> "Handle[R]": ...
    def add_task(  # pyright: ignore[reportIncompatibleMethodOverride]  # the same
        self, func: Any = NOT_GIVEN, /, *args: Any, **kwargs: Any
    ) -> "Handle[Any]":
        """Add a call, to be made after the response.

        A declared task's arguments are checked here: ArgumentError names the one that cannot be recorded. A
        plain function's call that cannot be recorded runs in process, as FastAPI would run it, and is warned
        about once.
        """
        return self._add(_function(func, kwargs), args, kwargs)

    def _add(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Handle[Any]":
        """Without a `Segundo`; a request of an app that has one says otherwise (segundo.request)."""
        if isinstance(function, Configured):
            raise ConfigurationError(
                "options(…) need an app with a Segundo: without one there is nothing to keep them"
            )
        return self._add_in_process(function, args, kwargs)

    def _add_in_process(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Handle[Any]":
        self.tasks.append(BackgroundTask(function, *args, **kwargs))
        return Handle(None)

    def accepted(self, call: Handle[Any]) -> Response:
        """The answer 202 Accepted with the record as its body and its address as `Location`.

        Raises ConfigurationError while the status routes are off, and for a call that runs in process.
        """
        raise ConfigurationError("accepted(…) needs an app with a Segundo")

    async def recorded(self, response: ResponseT) -> ResponseT:
        """Record all calls, durably on return, and have `response`, which is returned, carry them.

        Return it from the endpoint: in-process calls run after its last byte, the records at the request's
        end, also if the client has gone. If it never begins to be sent, since something failed after this,
        none of the calls runs. Its own `background=` is Starlette's.
        Raises HTTPException: 503 with `Retry-After` if the ledger does not take them in time, 409 if one is
        to wait for no record. Then none of them runs.
        """
        raise ConfigurationError(
            "recorded(…) is of BackgroundTasks(request), in an app with a Segundo; those that FastAPI gives "
            "are recorded when the endpoint has returned"
        )

    async def flush(self) -> None:
        """Wait until what was added so far is in the ledger. Raises LedgerUnavailable if it cannot be."""


InThread = Callable[[Callable[[], Any]], Awaitable[Any]]


def call_as_fastapi_does(task: starlette.background.BackgroundTask, in_thread: InThread) -> Awaitable[None]:
    """Run one task through FastAPI's own object, where tools hang their spans; a `def` by `in_thread`."""
    if not getattr(task, "is_async", True):
        this: Any = task  # Starlette's types see a question and its answer in the two
        this.func, this.is_async = _awaitable(task.func, in_thread), True
    return FastAPIBackgroundTasks(tasks=[task])()


def _awaitable(function: Callable[..., Any], in_thread: InThread) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)  # a span is named after it
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await in_thread(functools.partial(copy_context().run, function, *args, **kwargs))

    call.__qualname__ = name_of(function)  # a partial has none to give
    return call


def _function(function: Any, kwargs: dict[str, Any]) -> Any:
    """`func` may be given by keyword when nothing is positional, as Starlette allows."""
    if function is not NOT_GIVEN:
        return function
    if "func" not in kwargs:
        raise TypeError("add_task() needs a function to call")
    return kwargs.pop("func")
