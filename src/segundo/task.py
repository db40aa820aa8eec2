"""A task: a function and how it is to be run. `@task` declares one and leaves the function as it is."""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, overload

from segundo.codec import Arguments, Value
from segundo.duration import is_seconds, seconds
from segundo.errors import DeclarationError
from segundo.options import TaskFunction, check_priority, options_of
from segundo.record import DEFAULT_PRIORITY, LARGEST, LONGEST, Wipe, is_count, unstorable
from segundo.retry import NEVER, Retry

P = ParamSpec("P")
R = TypeVar("R")

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
            crash_limit=int(crashes) if is_count(crashes, least=0) else crashes,
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
    if task.timeout is not None and not (is_seconds(task.timeout) and task.timeout > 0):
        raise DeclarationError(f"@task(timeout=…) of {what} is in seconds and must be more than 0")
    if task.retention is not None and not (is_seconds(task.retention) and task.retention >= 0):
        raise DeclarationError(f"@task(retention=…) of {what} is a time and cannot be negative")
    if not is_count(task.crash_limit, least=0):
        raise DeclarationError(f"@task(crashes=…) of {what} is a whole number, 0 to {LARGEST:,}")
    for option in ("queue", "name"):
        wrong = unstorable(getattr(task, option), LONGEST[option])
        if wrong is not None:
            raise DeclarationError(f"@task({option}=…) of {what} {wrong}")
    task.arguments.check_declaration()
