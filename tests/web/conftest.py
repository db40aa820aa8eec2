"""What many tests of the web side begin with."""

from collections.abc import AsyncGenerator

import pytest
from fastapi import FastAPI

from segundo import Segundo
from tests.web.apps import lifespan


@pytest.fixture
async def segundo() -> AsyncGenerator[Segundo]:
    """The Segundo of an app that runs."""
    app = FastAPI()
    segundo = Segundo(app)
    async with lifespan(app):
        yield segundo
