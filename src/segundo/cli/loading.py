"""Finds the app that a worker is to run, as servers do: `module:attribute`, from the working directory."""

import importlib
import os
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from segundo.app import Segundo
from segundo.errors import ConfigurationError

LIBRARIES = (
    *(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")),
    Path(__file__).resolve().parents[1],  # this package, wherever it lies
)
DEEPEST = 20  # wrappers around an app


class AppFailed(ConfigurationError):
    """The app's own code raised: the message ends with its traceback."""

    def __init__(self, what: str, error: BaseException) -> None:
        super().__init__(f"{what}:\n\n{users_traceback(error)}".rstrip())


def load(target: str, *, factory: bool) -> Any:
    """The app at `module:attribute`. Raises ConfigurationError without one, AppFailed if its code raises."""
    module, colon, path = target.partition(":")
    if not (module and colon and path):
        raise ConfigurationError(f"{target!r} names no app: say module:attribute, as in main:app")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    found: Any = _imported(module)
    for name in path.split("."):
        if not hasattr(found, name):
            raise ConfigurationError(f"the module {module} has no {path!r}")
        found = getattr(found, name)
    return _made(found, target) if factory else found


def segundo_of(app: Any, target: str) -> Segundo:
    """The app's Segundo, also where middleware is wrapped around the app; of raw ASGI it is what is served.

    Raises ConfigurationError.
    """
    seen = app
    for _ in range(DEEPEST):
        found = seen if isinstance(seen, Segundo) else getattr(getattr(seen, "state", None), "segundo", None)
        if isinstance(found, Segundo) and callable(app):
            return found
        seen = getattr(seen, "app", None)
    raise ConfigurationError(
        f"{target} is no app with a Segundo: make one with Segundo(app), and say --factory if it is a "
        "function that returns the app"
    )


def users_traceback(error: BaseException) -> str:
    """A traceback that begins with the user's own code, not with what called it."""
    trace = error.__traceback__
    while trace is not None and _is_a_librarys(trace):
        trace = trace.tb_next
    if trace is None and not isinstance(error, SyntaxError):  # which names its place itself
        trace = error.__traceback__
    return "".join(traceback.format_exception(type(error), error, trace))


def _imported(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise ConfigurationError(f"there is no module {error.name!r} in {os.getcwd()}") from None
        raise AppFailed(f"{module} cannot be imported", error) from error
    except Exception as error:
        raise AppFailed(f"{module} cannot be imported", error) from error


def _made(factory: Any, target: str) -> Any:
    try:
        return factory()
    except Exception as error:
        raise AppFailed(f"{target}() did not make the app", error) from error


def _is_a_librarys(trace: TracebackType) -> bool:
    name = trace.tb_frame.f_code.co_filename
    place = Path(name).resolve()
    return name.startswith("<") or any(place.is_relative_to(library) for library in LIBRARIES)
