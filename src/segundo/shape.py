"""The shape of FastAPI that the seam hangs on to, looked at before it does: names, parameters, how it calls.

Looked at in the compiled code of `fastapi.routing`, as it was before anybody else put wrappers there. It says
that the parts are there; `segundo doctor` and the tests say that a request still goes through them.
"""

import importlib.util
import inspect
import re
from collections.abc import Iterator
from types import CodeType
from typing import Any, cast

import fastapi
import fastapi.dependencies.utils
import fastapi.routing

from segundo.errors import ConfigurationError

# All tests and `make upstream` passed with it. CI says when there is a newer one: raise it where that passes.
NEWEST_KNOWN = "0.165.0"
SOLVE = "solve_dependencies"
USED = ("request", "dependant", "background_tasks")  # its parameters that the seam reads or gives
GIVEN = {"request", "dependant"}  # by keyword, in every call of it: the seam's wrapper takes nothing else
REQUEST_STACK, FUNCTION_STACK = "fastapi_inner_astack", "fastapi_function_astack"


def check() -> None:
    """Raises ConfigurationError if this FastAPI has not what the seam hangs on to; the message says what."""
    missing = list(_missing())
    if missing:
        raise ConfigurationError(
            f"FastAPI {fastapi.__version__} has no {', no '.join(missing)}, where Segundo hangs on to it: "
            f"its BackgroundTasks would not be kept. The newest FastAPI known to work is {NEWEST_KNOWN}: "
            f"pip install 'fastapi=={NEWEST_KNOWN}', or look for a newer Segundo. Or do without private "
            "names, as Starlette apps do: Segundo(app, inject=False), and in the endpoints "
            "BackgroundTasks(request) and return await tasks.recorded(response)"
        )


def newer(version: str) -> bool:
    """Whether a FastAPI came out after the newest that is known."""
    return _numbers(version) > _numbers(NEWEST_KNOWN)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def _missing() -> Iterator[str]:
    solve = getattr(fastapi.dependencies.utils, SOLVE, None)
    if not callable(solve) or not hasattr(fastapi.routing, SOLVE):
        yield f"fastapi.routing.{SOLVE}"
        return
    parameters = inspect.signature(solve).parameters
    yield from (f"parameter {name!r} of {SOLVE}" for name in USED if name not in parameters)
    codes = list(_codes(_compiled("fastapi.routing")))
    for stack in (REQUEST_STACK, FUNCTION_STACK):
        if not any(stack in code.co_consts for code in codes):
            yield f"exit stack {stack!r} in a request's scope"
    calls = [code for code in codes if SOLVE in code.co_names and code.co_name != "<module>"]
    if not calls or not all(map(_by_keyword, calls)):
        yield f"call of {SOLVE} by keyword"


def _by_keyword(code: CodeType) -> bool:
    """Whether a call in it names what the seam needs: the names of a call's keywords are one constant."""
    tuples = (cast(tuple[object, ...], const) for const in code.co_consts if type(const) is tuple)
    return any(map(GIVEN.issubset, tuples))


def _compiled(module: str) -> CodeType:
    spec: Any = importlib.util.find_spec(module)
    code: CodeType = spec.loader.get_code(module)
    return code


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _codes(const)
