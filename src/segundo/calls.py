"""From what a user gives to `add_task` to the call that is recorded: named, bound, encoded."""

import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from segundo.codec import FORMAT, Value
from segundo.errors import ArgumentError, ConfigurationError, ResultError
from segundo.names import Names
from segundo.options import NO_OPTIONS, Configured, Options
from segundo.record import Call, new_id
from segundo.signature import name_of
from segundo.task import Task

logger = logging.getLogger("segundo")

NOT_SET: Any = object()


class Calls:
    """Makes the calls of one app.

    `carry`: the context variables that go along with each. `retention`: seconds that records are kept, where
    their task does not say; None: for ever.
    """

    def __init__(
        self, names: Names, *, carry: Mapping[str, ContextVar[Any]], retention: float | None
    ) -> None:
        self._names = names
        self._carry = carry
        self._carried = Value(Any)
        self._retention = retention
        self._warned: set[str] = set()

    def of(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Task, Call] | None:
        """The call to record; None, with one warning for each function, if it must run in process.

        Raises ArgumentError for a declared task's call that cannot be recorded.
        """
        made = self.plan(function, args, kwargs)
        if isinstance(made, str):
            self._warn_of(function, made)
            return None
        return made

    def must(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Task, Call]:
        """The call to record, where there is no request that could run it in process.

        Raises ArgumentError for every call that cannot be recorded.
        """
        made = self.plan(function, args, kwargs)
        if isinstance(made, str):
            raise ArgumentError(
                name_of(function), "func", f"cannot be recorded: {made}. Declare it with @task"
            )
        return made

    def plan(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Task, Call] | str:
        """The call to record, or why it must run in process."""
        options = NO_OPTIONS
        if isinstance(function, Configured):
            options = function.options
            function = function.function
        if not callable(function):
            raise TypeError(
                f"add_task() takes a function and its arguments apart, add_task(send, to), not {function!r}, "
                "which cannot be called"
            )
        task = self._names.offered(function)
        if isinstance(task, str):
            return task
        try:
            arguments = task.arguments.encode(args, kwargs)
        except ArgumentError as error:
            if not task.plain:
                raise
            return str(error)
        return task, self._make(task, options, arguments)

    def _make(self, task: Task, options: Options, arguments: str) -> Call:
        return Call(  # by position, which is twice as fast: one is made for every call
            new_id(),
            task.name,
            arguments,
            FORMAT,
            options.queue or task.queue,
            task.priority if options.priority is None else options.priority,
            options.delay,
            options.run_at,
            task.retry.attempts,
            task.crash_limit,
            options.key,
            None,  # retry_of
            self._retention if task.retention is None else task.retention,
            self._carry_along() if self._carry else None,
            options.links() if options.after is not None else (),
            True,  # held
            task.timeout,
            task.wipe,
        )

    def _carry_along(self) -> str:
        values = {
            name: value
            for name, variable in self._carry.items()
            if (value := variable.get(NOT_SET)) is not NOT_SET
        }
        try:
            return self._carried.encode(values)
        except ResultError as error:
            raise ConfigurationError(f"carry=… of {', '.join(values)}: {error}") from error

    def _warn_of(self, function: Any, why: str) -> None:
        name = name_of(function)
        if name not in self._warned:
            self._warned.add(name)
            logger.warning(
                "%s runs in process and is lost if the process ends first: %s. Declare it with @task, "
                "or give it arguments that can be recorded.",
                name,
                why,
            )
