"""An exception as a record keeps it: what it was, said in data that any reader understands."""

import contextlib
import json
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import fastapi
import starlette

# Who calls tasks and their dependencies.
CALLERS = (
    *(str(Path(file).parent) for file in (__file__, fastapi.__file__, starlette.__file__, anyio.__file__)),
    contextlib.__file__,
)
LONGEST_TRACEBACK, LONGEST_MESSAGE = 32_768, 8_192  # characters kept
MOST_NOTES, MOST_CAUSES = 20, 20
HIDDEN = "(hidden: the task is secret)"


@dataclass(frozen=True, slots=True)
class Cause:
    """An exception that led to another. `type` is its class as imported, `builtins` left out."""

    type: str
    message: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


@dataclass(frozen=True, slots=True)
class Failure(Cause):
    """The exception that ended an attempt: its own type and message, where it happened, and its causes.

    `traceback` is text, from the task's first line on; `causes` begin with the nearest.
    """

    traceback: str = ""
    causes: tuple[Cause, ...] = ()

    @classmethod
    def read(cls, text: str) -> Self:
        """What `describe` wrote. Of a text that somebody else wrote, that it is none of ours."""
        try:
            error: dict[str, Any] = json.loads(text)
            causes = tuple(Cause(**_read(cause)) for cause in error.get("causes", ()))
            return cls(**_read(error), traceback=_text(error.get("traceback", "")), causes=causes)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return cls(type="PayloadError", message="the record's error is nothing that Segundo wrote")


def _read(error: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": _text(error["type"]),
        "message": _text(error.get("message", "")),
        "notes": tuple(map(_text, error.get("notes", ()))),
    }


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return _printable(value)


def describe(error: BaseException, *, secret: bool = False) -> str:
    """An exception as JSON: type, message, notes, traceback, and its causes from the nearest on.

    Of a `secret` task only what it is and where: what exceptions say may be what the task was given.
    """
    if secret:
        return json.dumps(_hushed(error))
    text = _printable("".join(traceback.format_exception(type(error), error, _users_frames(error))))
    return json.dumps({**_short(error), "traceback": text[-LONGEST_TRACEBACK:], "causes": _causes(error)})


def _hushed(error: BaseException) -> dict[str, Any]:
    kind, frames = _type(error), _printable("".join(traceback.format_tb(_users_frames(error))))
    text = f"Traceback (most recent call last):\n{frames}{kind}: {HIDDEN}\n"
    causes = [{"type": cause["type"], "message": HIDDEN, "notes": list[str]()} for cause in _causes(error)]
    return {
        "type": kind,
        "message": HIDDEN,
        "notes": [],
        "traceback": text[-LONGEST_TRACEBACK:],
        "causes": causes,
    }


def _users_frames(error: BaseException) -> TracebackType | None:
    """The traceback from the first line on that is the app's own: what called it tells nobody anything."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(CALLERS):
        trace = trace.tb_next
    return trace or error.__traceback__


def _short(error: BaseException) -> dict[str, Any]:
    notes = list(getattr(error, "__notes__", ()))
    return {
        "type": _type(error),
        "message": _message(error),
        "notes": [_printable(str(note))[:LONGEST_MESSAGE] for note in notes[:MOST_NOTES]],
    }


def _type(error: BaseException) -> str:
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}"


def _message(error: BaseException) -> str:
    try:
        return _printable(str(error))[:LONGEST_MESSAGE]
    except Exception as broken:
        return f"<its message cannot be had: {type(broken).__name__}>"


def _printable(text: str) -> str:
    """Half of a surrogate pair is a str, but no text for a log, or for others who read JSON."""
    return text.encode("utf-8", "backslashreplace").decode()


def _causes(error: BaseException) -> list[dict[str, Any]]:
    causes: list[dict[str, Any]] = []
    seen = {id(error)}
    cause = _cause(error)
    while cause is not None and id(cause) not in seen and len(causes) < MOST_CAUSES:
        seen.add(id(cause))
        causes.append(_short(cause))
        cause = _cause(cause)
    return causes


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)
