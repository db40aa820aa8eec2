"""What a running task can ask of the attempt it is: `current()`, from anywhere below the task."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any, NamedTuple, ParamSpec, TypeVar, overload

from segundo.handle import Handle
from segundo.progress import Progress
from segundo.record import Call, Link, Record
from segundo.task import Task

logger = logging.getLogger("segundo.task")

P = ParamSpec("P")
R = TypeVar("R")

Inject = Callable[[Task, Callable[[dict[str, Any]], Awaitable[Any]]], Awaitable[Any]]
Make = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], tuple[Task, Call]]


class Home(NamedTuple):
    """Where attempts run: the user's app, how its calls are made, and what fills in injected parameters."""

    app: Any
    make: Make
    inject: Inject


class Children:
    """The calls that one attempt adds, until it is over. From any thread."""

    __slots__ = ("_added", "_adding")

    def __init__(self) -> None:
        self._adding = threading.Lock()
        self._added: list[tuple[Task, Call]] | None = []  # None: it is over

    def add(self, task: Task, call: Call) -> None:
        with self._adding:
            if self._added is None:
                raise RuntimeError("the attempt is over: its calls are added before it returns")
            self._added.append((task, call))

    @property
    def over(self) -> bool:
        """Whether they are closed: the attempt is over."""
        return self._added is None

    def close(self) -> tuple[Call, ...]:
        """The attempt is over: what it has added. From now on it adds no more."""
        with self._adding:
            added, self._added = self._added, None
        return _in_order(added) if added else ()


class Speaker(NamedTuple):
    """The attempt that says how far it is: which it is, where it runs, and what is closed when it is over."""

    id: str
    claim: int
    loop: asyncio.AbstractEventLoop
    children: Children


Say = Callable[[Speaker, Progress], None]


class TaskContext:
    """The attempt that runs: its record's `id`, its `attempt` (1 for the first), and whether to stop.

    `task` is the task's name, `app` the app that its `Segundo` was made for: of FastAPI, of Starlette, or a
    raw ASGI app; to type checkers anything, as `request.app` is.
    """

    __slots__ = ("_children", "_home", "_loop", "_say", "attempt", "cancelled", "claim", "id", "task")

    cancelled: bool
    """True once this attempt should end: cancelled, past its timeout, or the process is stopping.

    A `def` task that runs long looks here now and then and returns, or calls `check()`; an `async def` is
    cancelled at its next await.
    """

    def __init__(
        self,
        home: Home,
        children: Children,
        record: Record,
        say: Say,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._home = home
        self._children = children
        self._say = say
        self._loop = loop or asyncio.get_running_loop()
        self.id = record.id
        self.task = record.task
        self.attempt = record.attempt
        self.claim = record.claim
        self.cancelled = False

    @property
    def app(self) -> Any:
        return self._home.app

    def check(self) -> None:
        """End this attempt here if it should end, in an `async def` and in a `def`; else do nothing.

        It raises asyncio.CancelledError, as an await would; let it pass, so that the attempt ends as what it
        was told: cancelled, timed out (a failure, and perhaps tried again), or put back at a shutdown.
        """
        if self.cancelled:
            raise asyncio.CancelledError("the attempt was told to end")

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far this attempt is: so much is done, perhaps of a total. `message` is for people.

        It reaches the record within a quarter of a second, and no more often than that: of what is said in
        between, the last counts. The last of an attempt is stored with its end. Another attempt begins with
        none. From any thread or asyncio task of the attempt; it never waits.
        Raises ValueError for a negative number, infinity or NaN, `done` above `total`, and a message of more
        than 500 characters; TypeError for what is no number or no str. RuntimeError once the attempt is over.
        """
        progress = Progress.of(done, total, message)
        if self._children.over:
            raise RuntimeError("the attempt is over: its progress is said before it returns")
        self._say(Speaker(self.id, self.claim, self._loop, self._children), progress)

    @overload
    def add_task(
        self, func: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Handle[R]: ...
    @overload
    def add_task(self, func: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Handle[R]: ...
    def add_task(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Handle[Any]:
        """Add a child call. It is recorded in the transaction that stores this attempt's success.

        An attempt that ends otherwise drops its calls: they are as if never added, and the next attempt adds
        its own. From any thread or asyncio task of the attempt. Plain functions run one after another, in
        the order added. The handle has the call's id, and is told nothing more: while the attempt runs there
        is no record.
        Raises ArgumentError for what cannot be recorded, also a lambda: there is no request to run it in. An
        `after=` that names no record fails the attempt. RuntimeError once the attempt is over.
        """
        task, call = self._home.make(func, args, kwargs)
        self._children.add(task, call)
        return Handle(call.id)

    def log(self, message: str, *args: object) -> None:
        """Log to `segundo.task` at INFO, with the record's id and attempt in front."""
        text = message % args if args else message
        logger.info("%s %s (attempt %d): %s", self.task, self.id, self.attempt, text)


def _in_order(children: list[tuple[Task, Call]]) -> tuple[Call, ...]:
    """Plain calls run one after another, in the order added; one failing does not stop the next."""
    calls: list[Call] = []
    last_plain: str | None = None
    for task, call in children:
        if task.plain:
            before, last_plain = last_plain, call.id
            call = call if before is None else call._replace(after=(*call.after, Link(before, "run")))
        calls.append(call)
    return tuple(calls)


_current: ContextVar[TaskContext] = ContextVar("segundo.current")


def current() -> TaskContext:
    """The context of the task that runs here. RuntimeError outside a recorded task."""
    try:
        return _current.get()
    except LookupError:
        raise RuntimeError("segundo.current() is known only inside a recorded task") from None


def enter(context: TaskContext) -> None:
    """Make `context` the current one for the rest of this asyncio task or thread."""
    _current.set(context)
