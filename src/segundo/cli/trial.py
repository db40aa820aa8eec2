"""A trial of the installed FastAPI: one request, with one call, through an app and a ledger made for it."""

import asyncio
import logging
from typing import Any

from fastapi import BackgroundTasks, FastAPI
from starlette.types import Message

from segundo.app import Segundo
from segundo.handle import Handle
from segundo.lifespan import Lifespan
from segundo.record import State

logger = logging.getLogger("segundo")


def nothing() -> None:
    """What the trial's call runs."""


def trial() -> str | None:
    """What goes wrong with a request under this FastAPI; None if its call is kept.

    It leaves nothing behind. Raises ConfigurationError for a FastAPI that is refused.
    """
    quiet = logging.NullHandler()  # else the app's start is told on standard error
    logger.addHandler(quiet)
    try:
        return asyncio.run(_trial())
    finally:
        logger.removeHandler(quiet)


async def _trial() -> str | None:
    app = FastAPI()
    segundo = Segundo(app, ledger="memory://", modules=["segundo"], freeze=False)
    made: list[Any] = []
    recorded: list[bool] = []

    async def endpoint(tasks: BackgroundTasks) -> None:
        made.append(tasks.add_task(nothing))  # type: ignore[func-returns-value]  # Starlette's returns None

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            recorded.extend(isinstance(each, Handle) and each.recorded for each in made)

    app.add_api_route("/", endpoint, methods=["POST"])
    lifespan = Lifespan(app)
    await lifespan.start_up()
    try:
        await app(_scope(), _receive, send)
        ended = [record.state for record in await segundo.ledger.select()]
    finally:
        await lifespan.shut_down()
    if recorded != [True]:
        return "a call was not recorded before its request was answered"
    return None if ended == [State.SUCCEEDED] else "a call was recorded, and did not run after its request"


def _scope() -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [],
    }


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}
