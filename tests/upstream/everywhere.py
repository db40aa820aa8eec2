"""A pytest plugin: every FastAPI and Starlette app that is made has a `Segundo`. For upstream's own tests."""

from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette

from segundo import Segundo


def give_a_segundo(kind: type[Starlette]) -> None:
    """Once: were FastAPI to call Starlette, an app would be given two."""
    original = kind.__init__

    def with_a_segundo(self: Starlette, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if kind is FastAPI or not isinstance(self, FastAPI):
            Segundo(self)

    setattr(kind, "__init__", with_a_segundo)  # noqa: B010  (an assignment is no method, to type checkers)


give_a_segundo(Starlette)
give_a_segundo(FastAPI)
