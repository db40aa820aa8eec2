"""`Segundo(app)`: where the parts are joined."""

import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast, overload

from fastapi import APIRouter, params
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from segundo import asgi, seam
from segundo.attached import AttachedTasks, Starting
from segundo.background import BackgroundTasks
from segundo.calls import Calls
from segundo.child_tasks import ChildTasks
from segundo.context import Home
from segundo.dependencies import ATTEMPT, Dependencies
from segundo.edge import Edge
from segundo.errors import ConfigurationError, LedgerUnavailable
from segundo.executors.celery.host import Host
from segundo.executors.celery.routes import Routes
from segundo.handle import Handle, Origin
from segundo.ledger import Ledger, Settlement
from segundo.ledger.sqlite import MEMORY
from segundo.life import Life
from segundo.names import Names
from segundo.record import Call, Record
from segundo.request import Keeper, RequestTasks
from segundo.runtime import InlineRuntime, Runtime, of_tests
from segundo.settings import settings
from segundo.status import Status
from segundo.task import Task

P = ParamSpec("P")
R = TypeVar("R")

_serving: ContextVar[Scope | None] = ContextVar("segundo.serving", default=None)


class Segundo:
    """Keep an app's background tasks: recorded before the response leaves, run until they are done.

    One line beside a FastAPI app; every `BackgroundTasks` of its endpoints and dependencies is then durable.
    Beside a Starlette app, `BackgroundTasks(request)` is. Around a raw ASGI app, `seg = Segundo(app)`, it is
    `BackgroundTasks(seg)`, and `seg` is what the server runs. Each setting is an argument, else
    SEGUNDO_<NAME>, else its default:

    `ledger`: the file of records (`segundo.db`), or "postgresql://…"; "memory://" for tests. `status`: a
    prefix, or a router with your own dependencies, for the routes that show records (off). `cancel`:
    `Depends` on who may cancel by them (nobody). `concurrency`: how many records this process runs at once
    (64; 0 only records). `durability`: "full", or "normal" (a power loss may take the
    last commits). `record_timeout`: seconds a request waits for its records before it is refused with 503
    (5). `grace`: seconds that running tasks have at shutdown (30). `retention`: how long ended records are
    kept ("30d", "forever"). `carry`: context variables recorded with each call. `modules`: the top-level
    packages and modules whose plain functions may be recorded, instead of "where `Segundo` is made, and
    whatever is not installed". `freeze`: spare the garbage collector what is alive after start-up, and let
    it look at young objects in larger lots (on; a busy app answers more requests, and its longest pauses are
    shorter). `broker`: of the Celery workers that run the records, amqp://… or redis://… (none: the app's own
    processes do). `window`: how many records of a queue may have a message in the broker (1,000). `queues`:
    what runs single queues, a Celery app or "embedded". `inject`: False leaves FastAPI's own
    `BackgroundTasks` to its endpoints, and no private name of FastAPI is used; `BackgroundTasks(request)` is
    durable all the same.

    Nothing is opened before the app starts. Raises ConfigurationError.
    """

    def __init__(
        self,
        app: Starlette | ASGIApp,
        *,
        ledger: str | os.PathLike[str] | None = None,
        status: str | APIRouter | None = None,
        concurrency: int | None = None,
        durability: str | None = None,
        record_timeout: float | None = None,
        grace: float | None = None,
        retention: str | float | timedelta | None = None,
        carry: Mapping[str, ContextVar[Any]] | None = None,
        modules: Iterable[str] | None = None,
        freeze: bool | None = None,
        broker: str | None = None,
        window: int | None = None,
        queues: Mapping[str, Any] | None = None,
        inject: bool = True,
        cancel: params.Depends | None = None,
    ) -> None:
        asgi.check(app)
        self.app = app
        self.settings = settings(
            {
                "ledger": ledger,
                "broker": broker,
                "window": window,
                "concurrency": concurrency,
                "durability": durability,
                "record_timeout": record_timeout,
                "grace": grace,
                "retention": retention,
                "freeze": freeze,
            }
        )
        caller = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # cheaper than inspect, as logging has it
        maker = caller.f_globals.get("__name__", "__main__")
        self._life = Life(self._make_runtime)
        self._dependencies = Dependencies(app, lambda: self._life.state)
        self.routes = Routes(queues or {}, self.settings.broker)
        self._names = Names(
            [maker] if modules is None else modules,
            only=modules is not None,
            check=self._dependencies.check,
            others=self.routes.existing,
        )
        self._carry = _carried(carry or {})
        self._calls = Calls(self._names, carry=self._carry, retention=self.settings.retention)
        self._status = Status.of(status, self._life.started, cancel=cancel)
        if self._status is not None:
            asgi.add_routes(app, self._status.router)
        if isinstance(app, Starlette):
            app.router.lifespan_context = asgi.within(app.router.lifespan_context, self._life.lifespan)
            app.state.segundo = self
        self._place = seam.install(app, self, inject=inject)
        edge = partial(
            Edge,
            place=self._place,
            root=lambda: getattr(app, "root_path", ""),  # FastAPI's own, which it prefers to the server's
            begin=self._life.watch,
            up=self._life.up,
            drain=self._life.drain,
            down=self._life.close,
        )
        self._entrance = asgi.put_around(app, edge)
        self.routes.serve(
            Host(self._entrance, become=self._run_by_message, begin=self._life.started, take=self._take)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the app: what a server runs that has a raw ASGI app to run."""
        _serving.set(scope)
        await self._entrance(scope, receive, send)

    @property
    def scope(self) -> Scope:
        """Of the request that a raw ASGI app serves here. RuntimeError outside one."""
        scope = _serving.get()
        if scope is None or scope.get(seam.PLACE) is not self._place:
            raise RuntimeError(
                "BackgroundTasks(seg) is for the requests of a raw ASGI app that is served through its "
                "Segundo (uvicorn main:seg); elsewhere it is BackgroundTasks(request)"
            )
        return scope

    @property
    def ledger(self) -> Ledger:
        """The open ledger. Raises LedgerUnavailable before the app has started."""
        if self._life.runtime is None:
            raise LedgerUnavailable("the ledger is opened when the app starts; it has not")
        return self._life.runtime.ledger

    @overload
    async def submit(
        self, func: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Handle[R]: ...
    @overload
    async def submit(self, func: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Handle[R]: ...
    async def submit(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Handle[Any]:
        """Record a call outside a request, durably on return; it runs as soon as it is due.

        Raises ArgumentError for what cannot be recorded, UnknownRecord if there is no record that it is to
        wait for, and LedgerUnavailable if the ledger does not take it in time.
        """
        _, call = self._calls.must(func, args, kwargs)
        runtime = await self._life.started()
        records = await runtime.record([call._replace(held=False)])
        await runtime.begin(records)
        handle: Handle[Any] = Handle(records[0].id)
        handle.stored(records[0], Origin(runtime, over=True))
        return handle

    async def find(self, id: str) -> Record | None:
        """The record with this id as it stands in the ledger; None if there is none, or not any more."""
        return await (await self._life.started()).find(_id(id))

    @overload
    def handle(self, id: str, func: Callable[..., Coroutine[Any, Any, R]], /) -> Handle[R]: ...
    @overload
    def handle(self, id: str, func: Callable[..., R], /) -> Handle[R]: ...
    @overload
    def handle(self, id: str, /) -> Handle[Any]: ...
    def handle(self, id: str, func: Callable[..., Any] | None = None, /) -> Handle[Any]:
        """A handle by a record's id, to wait for what another request or process has recorded.

        `func`, the function that was called, is for type checkers: `await seg.handle(id, send).result()` is
        what `send` returns. The record itself says what ran.
        """
        return Handle(_id(id), Origin(Starting(self._life.started), over=True))

    async def cancel(self, id: str) -> Record:
        """Cancel the record with this id if it does not run yet, or ask the attempt that runs to end.

        As `Handle.cancel`, from any process of the ledger. Raises UnknownRecord, LedgerUnavailable.
        """
        return await (await self._life.started()).cancel(_id(id))

    def run_only(self, *, queues: Sequence[str] | None = None, concurrency: int | None = None) -> None:
        """Make this process a worker, before the app starts: which queues it runs (None: all), and how many
        records at once.

        Without `concurrency` it is the app's own, or the default where the app's servers only record (0).
        Raises ConfigurationError once the app has started, for a ledger that is in memory, and where Celery
        workers run all queues and none is named.
        """
        if self._life.runtime is not None:
            raise ConfigurationError("this app has started already: what it runs is settled before")
        if self.settings.ledger == MEMORY:
            raise ConfigurationError(
                f"the ledger {MEMORY} is in one process: a worker would find nothing in it"
            )
        if queues is None and self.routes.here.empty:
            raise ConfigurationError(
                "there is nothing for this worker to run: every queue goes to Celery workers. Start those "
                "(SEGUNDO_APP=main:app celery -A segundo.celery worker -Q default), or name a queue that is "
                "to be run here all the same (--queue)"
            )
        self.settings = self.settings.of_worker(queues=queues, concurrency=concurrency)

    @property
    def celery(self) -> Any:
        """The Celery app whose workers run this app's records: `celery -A main:celery worker -Q emails`,
        with `celery = seg.celery` in main.py.

        That of `broker`, or the only one of `queues`. Raises ConfigurationError if there is none.
        """
        return self.routes.celery

    def _make_runtime(self, testing: bool) -> Runtime:
        make = of_tests()
        if make is None:
            inline = testing or self.settings.ledger == MEMORY
            make = InlineRuntime if inline else partial(Runtime, routes=self.routes)
        home = Home(self.app, self._calls.must, self._dependencies.call)
        return make(self.settings, self._names, home, self._carry)

    def _run_by_message(self) -> None:
        self.settings = self.settings.changed("Celery worker", by_message=True)

    def _take(self, id: str) -> Settlement | None:
        assert self._life.runtime is not None  # it has begun
        return self._life.runtime.take(id)

    async def leave(self) -> None:
        """Say that this process is about to end: what runs here then goes to others, and counts no crash."""
        if self._life.runtime is not None:
            await self._life.runtime.ledger.leave(self._life.runtime.owner)

    # The desk of the request side

    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Task, Call] | None:
        return self._calls.of(function, args, kwargs)

    def accepted(self, handle: Handle[Any]) -> Response:
        if self._status is None:
            raise ConfigurationError('accepted(…) needs the status routes: Segundo(app, status="/tasks")')
        return self._status.accepted(handle)

    def kind_of_tasks(self, scope: Scope) -> type[BackgroundTasks]:
        """What `BackgroundTasks(request)` is there."""
        return ChildTasks if ATTEMPT in scope else AttachedTasks

    def keeper(self, scope: Scope) -> Keeper:
        return self._life.serving(scope) or Starting(lambda: self._life.started(scope))

    def begin(self, request: Any) -> RequestTasks | ChildTasks | None:
        """The request side of a request or WebSocket; None while no runtime serves it."""
        if ATTEMPT in request.scope:
            return ChildTasks()
        runtime = self._life.serving(request.scope)
        return None if runtime is None else RequestTasks(self, runtime, live=_is_live(request))

    async def start(self, request: Any) -> RequestTasks:
        """Start the runtime that the lifespan did not, and begin the request side."""
        runtime = await self._life.started(request.scope)
        return RequestTasks(self, runtime, live=_is_live(request))


def _is_live(request: Any) -> bool:
    """A WebSocket may stay open for days: its calls cannot wait for its end."""
    return bool(request.scope["type"] == "websocket")


def _carried(carry: Any) -> Mapping[str, ContextVar[Any]]:
    if not isinstance(carry, Mapping):
        raise ConfigurationError('carry=… names context variables: carry={"tenant": tenant_var}')
    for name, variable in cast("Mapping[str, object]", carry).items():
        if not isinstance(variable, ContextVar):
            raise ConfigurationError(f"carry={{{name!r}: …}} is a context variable, not {variable!r}")
    return dict(cast("Mapping[str, ContextVar[Any]]", carry))


def _id(id: str) -> str:
    if not isinstance(id, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # not all callers are typed
        raise TypeError(f"a record is found by its id, a text, as in handle.id; not by {id!r}")
    return id
