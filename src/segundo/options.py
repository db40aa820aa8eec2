"""Options of one call: `send.options(delay=60)` is given to `add_task` in the task's place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeVar, runtime_checkable

from segundo.duration import check_seconds
from segundo.record import LONGEST, PRIORITIES, Link, unstorable

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@runtime_checkable
class HasId(Protocol):
    """A handle or a record: anything that knows a record's id."""

    @property
    def id(self) -> str | None: ...


After = HasId | str | Sequence[HasId | str] | None
OnFailure = Literal["cancel", "run"]


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
        self.links()  # what is none raises here, on the line that says it

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
            raise ValueError(f"options(after=…): no record has the id {before!r}")
        return before
    if isinstance(before, HasId):
        return before.id
    raise _wrong(before)


def _wrong(after: object) -> TypeError:
    return TypeError(f"options(after=…) takes handles, records or their ids, one or several; not {after!r}")


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


NAMES = tuple(field.name for field in fields(Options))


def options_of(function: Callable[P, R]) -> Callable[..., Configured[P, R]]:
    """The `options` of a declared function."""

    def options(
        *,
        delay: float | timedelta = 0.0,
        run_at: datetime | float | None = None,
        priority: int | None = None,
        queue: str | None = None,
        key: str | None = None,
        after: After = None,
        on_failure: OnFailure = "cancel",
        **unknown: object,
    ) -> Configured[P, R]:
        if unknown:
            raise _unknown(next(iter(unknown)))
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


def _unknown(name: str) -> TypeError:
    near = get_close_matches(name, NAMES, n=1)
    instead = f"did you mean {near[0]}=…?" if near else f"they are {', '.join(NAMES)}"
    return TypeError(f"options({name}=…): there is no such option; {instead}")


def check_priority(priority: int) -> int:
    if priority not in PRIORITIES:
        raise ValueError(f"priority is 0 to 9, 9 first; not {priority!r}")
    return int(priority)  # 5.0 is one of them, and no integer for a store


def timestamp(moment: datetime) -> float:
    if moment.tzinfo is None:
        raise ValueError("run_at=… needs an aware datetime (with a time zone), or unix seconds")
    return moment.timestamp()
