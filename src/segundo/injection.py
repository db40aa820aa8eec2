"""Which parameters of a task are injected when it runs, as FastAPI injects those of an endpoint."""

import inspect
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from fastapi import params
from fastapi.security import SecurityScopes
from starlette.background import BackgroundTasks
from starlette.requests import HTTPConnection
from starlette.responses import Response

from segundo.errors import DeclarationError

if TYPE_CHECKING:
    from segundo.signature import Signature

# What FastAPI gives to whoever declares it, without Depends.
GIVEN = (HTTPConnection, Response, BackgroundTasks, SecurityScopes)
# What a parameter is marked with that FastAPI reads from a request: Header(), Query(), Body(), File() …
READ = (params.Param, params.Body)


class Injected:
    """Stands where a value will be when the task runs; used before, it says so."""

    def __repr__(self) -> str:
        return "INJECTED"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"this value is injected when the task runs, so it has no {name!r} yet: who calls the function "
            "directly passes one"
        )


INJECTED: Any = Injected()
"""The default of an injected parameter: `smtp: Annotated[SMTP, Depends(get_smtp)] = INJECTED`.

It lets callers leave the argument out, for type checkers too.
"""


def injected(signature: "Signature") -> frozenset[str]:
    """The names of the injected parameters. DeclarationError for one that cannot be passed by name."""
    found = [key for key, each in signature.parameters.items() if _is_injected(signature, key, each)]
    for key in found:
        parameter = signature.parameters[key]
        if parameter.kind is Parameter.POSITIONAL_ONLY or (
            signature.rest is not None and parameter.kind is Parameter.POSITIONAL_OR_KEYWORD
        ):
            raise DeclarationError(
                f"{signature.name}(): parameter {key!r} is injected by name: move it behind a *"
            )
    return frozenset(found)


def check_unread(signature: "Signature") -> None:
    """Raise DeclarationError for a parameter that FastAPI would read from a request.

    For a declared task only: a plain function may be an endpoint's dependency, whose caller passes all of it.
    """
    for key, parameter in signature.parameters.items():
        mark = _mark_in(signature, key, parameter)
        if mark is not None:
            raise DeclarationError(
                f"{signature.name}(): parameter {key.lstrip('*')!r} is a {type(mark).__name__}(), to be read "
                "from a request, and a task has none: leave that out here, read the value in the endpoint, "
                "and pass it to add_task"
            )


def _mark_in(signature: "Signature", key: str, parameter: Parameter) -> object:
    if isinstance(parameter.default, READ):
        return parameter.default
    annotation = _annotation(signature, key)
    marks = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return next((each for each in marks if isinstance(each, READ)), None)


def _annotation(signature: "Signature", key: str) -> Any:
    """None where it cannot be looked up (it is any expression): who records the argument will say so."""
    try:
        return signature.annotation(key)
    except Exception:  # the expression is the user's, and may raise anything
        return None


def _is_injected(signature: "Signature", key: str, parameter: Parameter) -> bool:
    if isinstance(parameter.default, params.Depends):
        return True
    if key.startswith("*") or parameter.annotation is Parameter.empty:
        return False
    annotation = _annotation(signature, key)
    return depends_in(annotation) is not None or is_given(annotation)


def depends_in(annotation: Any) -> params.Depends | None:
    """The Depends of an annotation. As in FastAPI, the last one counts."""
    if get_origin(annotation) is not Annotated:
        return None
    found = [each for each in get_args(annotation)[1:] if isinstance(each, params.Depends)]
    return found[-1] if found else None


def is_given(annotation: Any) -> bool:
    kind = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return inspect.isclass(kind) and issubclass(kind, GIVEN)
