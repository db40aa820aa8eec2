"""How a call's arguments and its payload, an object of named values, become one another.

With `def f(a, *rest, **more)`, the call f(1, 2, 3, colour="red") is
{"a": 1, "*rest": [2, 3], "**more": {"colour": "red"}}: a key is the parameter's name, positional-only or not,
and no other name can begin with a star. What is not passed is not in it: its default is taken when the task
runs.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from inspect import Parameter
from types import SimpleNamespace
from typing import Any, Optional, ParamSpecArgs, ParamSpecKwargs, get_type_hints

from segundo.errors import ArgumentError

KINDS = (
    Parameter.POSITIONAL_ONLY,
    Parameter.POSITIONAL_OR_KEYWORD,
    Parameter.KEYWORD_ONLY,
    Parameter.VAR_POSITIONAL,
    Parameter.VAR_KEYWORD,
)
Call = tuple[tuple[Any, ...], dict[str, Any]]


class Signature:
    """The parameters of the very callable, whatever it wraps. `skip`: those that the caller does not pass."""

    def __init__(self, function: Callable[..., Any], skip: frozenset[str] = frozenset()) -> None:
        parameters = read(function)
        only, either, keyword, rest, more = (
            [each for each in parameters if each.kind is kind] for kind in KINDS
        )
        self.name = name_of(function)
        self.positional = tuple(each.name for each in only + either)
        self.positional_only = len(only)
        self.keywords = frozenset(each.name for each in either + keyword)
        self.rest = f"*{rest[0].name}" if rest else None
        self.more = f"**{more[0].name}" if more else None
        self.by_name = not (only or rest or more)  # the common case: everything can be passed by name
        self.parameters = {stars(each) + each.name: each for each in parameters}
        self.required = frozenset(key for key, each in self.parameters.items() if is_required(each)) - skip
        self._function = function

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The named values of a call. ArgumentError, naming the argument, if Python would refuse the call."""
        given: dict[str, Any] = dict(zip(self.positional, args, strict=False))
        if len(args) > len(self.positional):
            self._bind_rest(args, given)
        if kwargs:
            self._bind_keywords(kwargs, given)
        if not self.required <= given.keys():
            missing = next(key for key in self.parameters if key in self.required and key not in given)
            raise ArgumentError(self.name, missing, "is missing")
        return given

    def _bind_rest(self, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        count = len(self.positional)
        if self.rest is None:
            raise ArgumentError(self.name, f"#{count + 1}", f"is one too many: it takes {count} by position")
        given[self.rest] = args[count:]

    def _bind_keywords(self, kwargs: Mapping[str, Any], given: dict[str, Any]) -> None:
        more: dict[str, Any] = {}
        for name, value in kwargs.items():
            if name not in self.keywords:
                if self.more is None:
                    by_position = name in self.positional
                    why = "can be passed by position only" if by_position else "is not a parameter of it"
                    raise ArgumentError(self.name, name, why)
                more[name] = value
            elif name in given:
                raise ArgumentError(self.name, name, "is passed twice, by position and by name")
            else:
                given[name] = value
        if more and self.more is not None:
            given[self.more] = more

    def unbind(self, given: dict[str, Any]) -> Call:
        """The call of named values, passed by name where possible. LookupError if Python would refuse it."""
        missing = self.required - given.keys()
        if missing:
            raise LookupError(f"argument {min(missing)!r} is missing")
        if self.by_name:
            return (), given
        rest = given.pop(self.rest, ()) if self.rest else ()
        more: dict[str, Any] = given.pop(self.more, {}) if self.more else {}
        if not more.keys().isdisjoint(self.keywords):
            raise LookupError(f"argument {min(more.keys() & self.keywords)!r} is not where it belongs")
        # Before *rest goes every positional argument; else those that cannot go by name, and without a gap.
        names = self.positional if rest else self.positional[: self.positional_only]
        passed = [name for name in names if name in given]
        if passed != list(names[: len(names) if rest else len(passed)]):
            raise LookupError(f"argument {next(name for name in names if name not in given)!r} is missing")
        args = [given.pop(name) for name in passed]
        return (*args, *rest), given | more

    def annotation(self, key: str) -> Any:
        """A parameter's annotation, evaluated; Any without one. NameError, or others, if it cannot be."""
        annotation = self.parameters[key].annotation
        if annotation is Parameter.empty:
            return Any
        annotation = evaluated(self._function, annotation)
        return Any if isinstance(annotation, ParamSpecArgs | ParamSpecKwargs) else annotation

    def takes(self, key: str) -> Any:
        """What a parameter takes: as its annotation says, and None where that is its default.

        `name: str = None` says what it means to everybody but a type checker.
        """
        annotation = self.annotation(key)
        return Optional[annotation] if self.parameters[key].default is None else annotation  # noqa: UP045  (None | None fails)


def read(function: Callable[..., Any]) -> list[Parameter]:
    """The parameters, with their annotations as they stand. None for a builtin that does not tell."""
    try:
        return list(signature_of(function).parameters.values())
    except (TypeError, ValueError):
        return []


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (
        3,
        14,
    ):  # there, a name that is not defined yet must not hide the other annotations
        from annotationlib import Format

        return inspect.signature(function, follow_wrapped=False, annotation_format=Format.FORWARDREF)
    return inspect.signature(function, follow_wrapped=False)


def result_annotation(function: Callable[..., Any]) -> Any:
    """The annotation of the result, evaluated; Any without one. Raises as `Signature.annotation` does."""
    annotation = signature_of(function).return_annotation
    return Any if annotation is inspect.Signature.empty else evaluated(function, annotation)


def evaluated(function: Callable[..., Any], annotation: Any) -> Any:
    """An annotation, its forward references resolved where the function was written.

    functools.wraps copies annotations, so the names in them are those of the innermost function's module.
    """
    origin: Any = inspect.unwrap(function)
    origin = getattr(origin, "__func__", origin)
    module = sys.modules.get(getattr(origin, "__module__", None) or "")
    names: dict[str, Any] = getattr(origin, "__globals__", None) or (vars(module) if module else {})
    own = {each.__name__: each for each in getattr(origin, "__type_params__", ())}
    holder = SimpleNamespace(__annotations__={"it": annotation})
    return get_type_hints(holder, names, own, include_extras=True)["it"]


def name_of(function: Any) -> str:
    """What to call a function, whatever is around it."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def stars(parameter: Parameter) -> str:
    if parameter.kind is Parameter.VAR_POSITIONAL:
        return "*"
    return "**" if parameter.kind is Parameter.VAR_KEYWORD else ""


def is_required(parameter: Parameter) -> bool:
    return parameter.default is Parameter.empty and not stars(parameter)
