"""A pytest plugin: every FastAPI app that is made has a `Segundo`. It is given to upstream's own tests."""

from typing import Any

import fastapi

from segundo import Segundo

original = fastapi.FastAPI.__init__


def with_a_segundo(self: fastapi.FastAPI, *args: Any, **kwargs: Any) -> None:
    original(self, *args, **kwargs)
    Segundo(self)


setattr(fastapi.FastAPI, "__init__", with_a_segundo)  # noqa: B010  (an assignment is no method, to type checkers)
