"""A task: a function and how it is to be run. `@task` declares one and leaves the function as it is."""

import inspect
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeVar, overload, runtime_checkable

from segundo.codec import Arguments, Value
from segundo.errors import DeclarationError
from segundo.record import DEFAULT_PRIORITY, LARGEST, LONGEST, PRIORITIES, Link, Wipe, unstorable
from segundo.retry import NEVER, Retry

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

MARK = "__segundo__"  # where a declared function keeps its Task
DEFAULT_QUEUE = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A function and its policy. A plain one is undeclared: no crash budget, one attempt, no result kept."""

    function: Callable[..., Any]
    name: str
    queue: str = DEFAULT_QUEUE
    retry: Retry = NEVER
    timeout: float | None = None
    crash_limit: int = 0
    priority: int = DEFAULT_PRIORITY
    retention: float | None = None
    keep_result: bool = False
    wipe: Wipe | None = None
    plain: bool = False
    is_async: bool
    arguments: Arguments
    result: Value


@runtime_checkable
class HasId(Protocol):
    """A handle or a record: anything that knows a record's id."""

    @property
    def id(self) -> str | None: ...


After = HasId | str | Sequence[HasId | str] | None
OnFailure = Literal["cancel", "run"]


def check_seconds(name: str, value: object) -> None:
    """A number that a ledger can add to a time, and store."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"options({name}=…) takes a finite number of seconds; not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How one call differs from its task: see `TaskFunction.options`."""

    delay: float = 0.0
    run_at: float | None = None
    priority: int | None = None
    queue: str | None = None
    key: str | None = None
    after: After = None
    on_failure: OnFailure = "cancel"

    def __post_init__(self) -> None:
        check_seconds("delay", self.delay)
        if self.run_at is not None:
            check_seconds("run_at", self.run_at)
        if self.delay < 0:
            raise ValueError("options(delay=…) is in seconds and cannot be negative")
        if self.delay and self.run_at is not None:
            raise ValueError("options() takes delay=… or run_at=…, not both")
        if self.priority is not None:
            object.__setattr__(self, "priority", check_priority(self.priority))
        _check_text("queue", self.queue)
        _check_text("key", self.key)
        if self.on_failure not in ("cancel", "run"):
            raise ValueError(f'on_failure is "cancel" or "run", not {self.on_failure!r}')
        if self.on_failure == "run" and self.after is None:
            raise ValueError(
                'options(on_failure="run") says what happens after another call: give after=… too'
            )

    def links(self) -> tuple[Link, ...]:
        """What the call waits for. A call that runs in process is over before any recorded one starts."""
        if self.after is None:
            return ()
        ids = dict.fromkeys(map(_id_of, _several(self.after)))  # each once
        return tuple(Link(id, self.on_failure) for id in ids if id is not None)


def _check_text(option: str, text: str | None) -> None:
    wrong = None if text is None else unstorable(text, LONGEST[option])
    if wrong is not None:
        raise ValueError(f"options({option}=…) {wrong}")


def _several(after: HasId | str | Sequence[HasId | str]) -> Sequence[object]:
    if isinstance(after, str | HasId):  # asked first: a record is a sequence too
        return (after,)
    if not isinstance(after, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]  # not all callers are typed
        raise _wrong(after)
    return after


def _id_of(before: object) -> str | None:
    if isinstance(before, str):
        if not before.isprintable():
            raise ValueError(f"after=…: no record has the id {before!r}")
        return before
    if isinstance(before, HasId):
        return before.id
    raise _wrong(before)


def _wrong(after: object) -> TypeError:
    return TypeError(f"after=… takes handles, records or their ids, one or several; not {after!r}")


NO_OPTIONS = Options()


@dataclass(frozen=True, slots=True)
class Configured(Generic[P, R_co]):
    """A declared task with options for one call: give it to `add_task` in the task's place."""

    function: Callable[P, R_co]
    options: Options

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        return self.function(*args, **kwargs)


class TaskFunction(Protocol[P, R_co]):
    """What a declared function is to a type checker: itself, and `options`."""

    __name__: str
    __qualname__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def options(
        self,
        *,
        delay: float | timedelta = 0.0,
        run_at: datetime | float | None = None,
        priority: int | None = None,
        queue: str | None = None,
        key: str | None = None,
        after: After = None,
        on_failure: OnFailure = "cancel",
    ) -> "Configured[P, R_co]":
        """Options for one call.

        `delay`: seconds (or a timedelta) from the moment of recording. `run_at`: an aware datetime, or unix
        seconds. `priority`: 0-9, 9 first. `key`: unique per task among live records; a duplicate call is
        recorded as cancelled. `after`: handles, records or ids, one or several: this call waits until all of
        them have ended. `on_failure`: what becomes of it if one did not succeed, "cancel" (reason
        PredecessorFailed) or "run". An id of no record refuses the whole request, with 409.
        """
        ...


@overload
def task(function: Callable[P, R], /) -> TaskFunction[P, R]: ...


@overload
def task(
    *,
    name: str | None = None,
    queue: str = DEFAULT_QUEUE,
    retry: Retry | None = None,
    timeout: float | None = None,
    crashes: int = 3,
    priority: int = DEFAULT_PRIORITY,
    retention: str | float | timedelta | None = None,
    keep_result: bool = True,
    keep_arguments: bool = True,
    secret: bool = False,
) -> Callable[[Callable[P, R]], TaskFunction[P, R]]: ...


def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str = DEFAULT_QUEUE,
    retry: Retry | None = None,
    timeout: float | None = None,
    crashes: int = 3,
    priority: int = DEFAULT_PRIORITY,
    retention: str | float | timedelta | None = None,
    keep_result: bool = True,
    keep_arguments: bool = True,
    secret: bool = False,
) -> Any:
    """Declare a function as a task: it runs on its own until done, by its budgets, and its result is kept.

    `name`: what the ledger calls it ("module:function" by default); keep it when you move the function.
    `retry`: when a failed attempt is followed by another (one attempt by default). `timeout`: seconds for one
    attempt; a `def` cannot be stopped, it stays running until its thread ends. `crashes`: how often it may
    take its process down, or go down with it, and run again. `retention`: how long the ended record is kept
    ("30d", seconds). `keep_result=False`: what it returns is dropped, and who waits for it gets None.
    `keep_arguments=False`: they are deleted when the record ends, which then cannot be retried by hand.
    `secret`: the same, and until then nobody is shown them; SecretStr and fields that are left out of dumps
    may be among them, and of the task's exceptions only what they are and where is recorded.
    Raises DeclarationError where the function cannot be one: it must live in a module, by its own name.
    """

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        check_function(function)
        declared = Task(
            function=function,
            name=name or default_name(function),
            queue=queue,
            retry=retry or NEVER,
            timeout=timeout,
            crash_limit=crashes if crashes % 1 else int(crashes),
            priority=check_priority(priority),
            retention=None if retention is None else seconds(retention),
            keep_result=keep_result,
            wipe=Wipe.SECRET if secret else None if keep_arguments else Wipe.AT_THE_END,
            is_async=inspect.iscoroutinefunction(function),
            arguments=Arguments(function, secret=secret),
            result=Value.returned_by(function),
        )
        check_declaration(declared)
        register(declared)
        vars(function).update({MARK: declared, "options": options_of(function)})
        return function

    return declare if function is None else declare(function)


def options_of(function: Callable[P, R]) -> Callable[..., Configured[P, R]]:
    def options(
        *,
        delay: float | timedelta = 0.0,
        run_at: datetime | float | None = None,
        priority: int | None = None,
        queue: str | None = None,
        key: str | None = None,
        after: After = None,
        on_failure: OnFailure = "cancel",
    ) -> Configured[P, R]:
        chosen = Options(
            delay=delay.total_seconds() if isinstance(delay, timedelta) else delay,
            run_at=timestamp(run_at) if isinstance(run_at, datetime) else run_at,
            priority=priority,
            queue=queue,
            key=key,
            after=after,
            on_failure=on_failure,
        )
        return Configured(function, chosen)

    options.__doc__ = TaskFunction[..., Any].options.__doc__
    return options


def plain(function: Callable[..., Any], name: str) -> Task:
    """The task that an undeclared function is."""
    return Task(
        function=function,
        name=name,
        plain=True,
        is_async=inspect.iscoroutinefunction(function),
        arguments=Arguments(function),
        result=Value(None),
    )


def declared(function: object) -> Task | None:
    """The task that `@task` made of this very function."""
    found = getattr(function, MARK, None)
    # A wrapper made with functools.wraps carries the mark of what it wraps, but is another function.
    return found if isinstance(found, Task) and found.function is function else None


# Per process, because a declaration is: the module that holds it may be imported before, or without, any app.
_declared: dict[str, Task] = {}


def register(task: Task) -> None:
    """Make a declared task known by its name. A module that is loaded again replaces its own declarations."""
    known = _declared.get(task.name)
    if known is not None and _place(known) != _place(task):
        raise DeclarationError(
            f"two tasks are called {task.name!r}: {_place(known)} and {_place(task)}; give one another name=…"
        )
    _declared[task.name] = task


def registered(name: str) -> Task | None:
    """The declared task with this name, if its module has been imported."""
    return _declared.get(name)


def _place(task: Task) -> str:
    return default_name(task.function)


def default_name(function: Callable[..., Any]) -> str:
    return f"{import_name(function.__module__)}:{function.__qualname__}"


def import_name(module: str) -> str:
    """The name under which another process imports this module: `__main__` has its file's or `-m` name."""
    if module not in ("__main__", "__mp_main__"):
        return module
    main = sys.modules[module]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    return Path(getattr(main, "__file__", None) or module).stem


def check_function(function: Callable[..., Any]) -> None:
    """Whether a later process can find the function by its name, and calling it does its work."""
    if not inspect.isfunction(function):
        raise DeclarationError(f"@task takes a function, not {function!r}; declare a function that uses it")
    what = function.__qualname__
    if "<" in what:
        raise DeclarationError(
            f"@task: {what} is defined inside a function, where no later process finds it; move it out"
        )
    if "." in what:
        raise DeclarationError(
            f"@task: {what} is a method; declare a function of the module that is given what it needs"
        )
    check_body(function)


def check_body(function: Callable[..., Any]) -> None:
    """Whether calling the function does its work."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        what = getattr(function, "__qualname__", function)
        raise DeclarationError(
            f"{what} has a `yield`, so it is a generator, whose body would never run as a task: return "
            "a value instead, or add a function that goes through it"
        )


def check_declaration(task: Task) -> None:
    what = task.function.__qualname__
    if not isinstance(task.retry, Retry):  # pyright: ignore[reportUnnecessaryIsInstance]  # not all callers are typed
        raise DeclarationError(f"@task(retry=…) of {what} is a Retry: retry=Retry(attempts=3)")
    if task.timeout is not None and task.timeout <= 0:
        raise DeclarationError(f"@task(timeout=…) of {what} is in seconds and must be more than 0")
    if not 0 <= task.crash_limit <= LARGEST or task.crash_limit % 1:
        raise DeclarationError(f"@task(crashes=…) of {what} is a whole number, 0 to {LARGEST:,}")
    for option in ("queue", "name"):
        wrong = unstorable(getattr(task, option), LONGEST[option])
        if wrong is not None:
            raise DeclarationError(f"@task({option}=…) of {what} {wrong}")
    task.arguments.check_declaration()


def check_priority(priority: int) -> int:
    if priority not in PRIORITIES:
        raise ValueError(f"priority is 0 to 9, 9 first; not {priority!r}")
    return int(priority)  # 5.0 is one of them, and no integer for a store


def timestamp(moment: datetime) -> float:
    if moment.tzinfo is None:
        raise ValueError("run_at=… needs an aware datetime (with a time zone), or unix seconds")
    return moment.timestamp()


UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def seconds(duration: str | float | timedelta) -> float:
    """A duration in seconds: a number, a timedelta, or a text such as "90s", "15m", "12h", "30d", "2w"."""
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if isinstance(duration, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw]?)\s*", duration)
        if match is None:
            raise ValueError(
                f"a duration is a number of seconds, or a text such as 90s, 15m, 12h, 30d; not {duration!r}"
            )
        return float(match[1]) * UNITS[match[2] or "s"]
    return float(duration)
