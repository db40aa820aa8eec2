"""What was seen of the calls that a test made: with which arguments, and which of them failed."""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from segundo.names import Names
from segundo.options import Configured
from segundo.record import Call
from segundo.signature import name_of, signature_of

Wanted = tuple[Callable[..., Any], inspect.BoundArguments]


@dataclass(frozen=True, slots=True)
class SeenCall:
    """A call that was made: recorded by a request, `submit` or a task, or run in process.

    `id`: its record's, None in process. `task`: its name in the ledger; in process, the function's.
    """

    id: str | None
    task: str
    call: Call | None = field(repr=False)  # as it was recorded
    _function: Callable[..., Any] = field(repr=False)
    _passed: tuple[tuple[Any, ...], Mapping[str, Any]] = field(repr=False)
    _injected: Collection[str] = field(repr=False, default=())

    @classmethod
    def recorded(cls, call: Call, names: Names) -> "SeenCall":
        task = names.resolve(call.task)
        passed = task.arguments.decode(call.arguments)
        return cls(call.id, call.task, call, task.function, passed, task.arguments.injected)

    @classmethod
    def in_process(cls, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> "SeenCall":
        return cls(None, getattr(function, "__qualname__", repr(function)), None, function, (args, kwargs))

    @property
    def arguments(self) -> dict[str, Any]:
        """What the function is called with, by the names of its parameters. Defaults are
        filled in; what is injected is left out."""
        args, kwargs = self._passed
        bound = signature_of(self._function).bind_partial(*args, **kwargs)
        bound.apply_defaults()
        return {name: value for name, value in bound.arguments.items() if name not in self._injected}

    @property
    def queue(self) -> str | None:
        return None if self.call is None else self.call.queue

    @property
    def key(self) -> str | None:
        return None if self.call is None else self.call.key

    @property
    def delay(self) -> float:
        """Seconds from the moment of recording; 0 for a call with `run_at`."""
        return 0.0 if self.call is None else self.call.delay

    def is_of(self, function: Callable[..., Any], wanted: inspect.BoundArguments) -> bool:
        """Whether it is a call of `function` with these arguments; those that are not given may be any."""
        if function != self._function:
            return False
        given = self.arguments
        kinds = {name: each.kind for name, each in wanted.signature.parameters.items()}
        return all(
            name in given and _fits(kinds[name], value, given[name])
            for name, value in wanted.arguments.items()
        )

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.task}({arguments})"


def bound(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Wanted:
    """A function and some of its arguments, each with its parameter. TypeError for what it does not take."""
    if isinstance(function, Configured):
        function = function.function
    signature = signature_of(function)
    try:
        return function, signature.bind_partial(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"called(…) of {name_of(function)}{signature}: {error}") from None


def _fits(kind: object, wanted: Any, given: Any) -> bool:
    if kind is inspect.Parameter.VAR_KEYWORD:
        return all(name in given and value == given[name] for name, value in wanted.items())
    if kind is inspect.Parameter.VAR_POSITIONAL:
        return bool(wanted == given[: len(wanted)])
    return bool(wanted == given)


@dataclass(frozen=True, slots=True)
class FailedCall:
    """A call that ended `failed`, for good. `reason`: as in its record. `error`: the exception itself."""

    id: str | None
    task: str
    reason: str
    error: BaseException
