"""Apps as a server runs them, in this process: their lifespan, a client, a look into their ledger's file."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segundo import Segundo
from tests.support import ledger_rows, wait_until_async

LEDGER = Path("segundo.db")  # in the test's own directory
TERMINAL = {"succeeded", "failed", "cancelled"}


@asynccontextmanager
async def running(app: ASGIApp, **transport: Any) -> AsyncGenerator[httpx.AsyncClient]:
    """The app between start-up and shutdown, as a server speaks to it, and a client that calls it directly.

    What the app raises reaches the client, as under httpx, unless `raise_app_exceptions=False`.
    """
    async with lifespan(app), calling(app, **transport) as client:
        yield client


@asynccontextmanager
async def calling(app: ASGIApp, **transport: Any) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of an app whose lifespan nobody runs."""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app, **transport), base_url="http://app"
    ) as client:
        yield client


@asynccontextmanager
async def lifespan(app: ASGIApp) -> AsyncGenerator[None]:
    """Start-up and shutdown, each in the one task that servers run them in."""
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    task = asyncio.ensure_future(app(scope, to_app.get, from_app.put))
    await to_app.put({"type": "lifespan.startup"})
    await _answer(task, from_app)
    try:
        yield
    finally:
        await to_app.put({"type": "lifespan.shutdown"})
        await _answer(task, from_app)
        await task


async def _answer(task: "asyncio.Future[None]", from_app: asyncio.Queue[Message]) -> None:
    answer = asyncio.ensure_future(from_app.get())
    await asyncio.wait((task, answer), return_when=asyncio.FIRST_COMPLETED)
    if not answer.done():
        answer.cancel()
        await task  # it ended without an answer: raise why
        raise AssertionError("the app's lifespan ended without an answer")
    message = answer.result()
    if message["type"].endswith(".failed"):
        with suppress(BaseException):
            await task
        raise AssertionError(message.get("message"))


@asynccontextmanager
async def served(app: ASGIApp, **config: Any) -> AsyncGenerator[str]:
    """The app under uvicorn on a real socket of this process's loop; its URL. `config` is uvicorn's."""
    options = {"log_config": None, "access_log": False, "lifespan": "on", **config}
    server = uvicorn.Server(uvicorn.Config(app, **options))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await wait_until_async(lambda: server.started or task.done())
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            await task


@asynccontextmanager
async def served_client(app: ASGIApp, **config: Any) -> AsyncGenerator[httpx.AsyncClient]:
    async with served(app, **config) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        yield client


def records(ledger: Path = LEDGER) -> list[dict[str, Any]]:
    """What is on disk; nothing if there is no file yet."""
    return ledger_rows(ledger) if ledger.exists() else []


def states(ledger: Path = LEDGER) -> list[str]:
    return [record["state"] for record in records(ledger)]


async def ended(count: int, ledger: Path = LEDGER) -> list[dict[str, Any]]:
    """Wait until the ledger has `count` records, all of them ended."""

    def all_ended() -> list[dict[str, Any]] | None:
        found = records(ledger)
        return found if len(found) == count and {row["state"] for row in found} <= TERMINAL else None

    return await wait_until_async(lambda: all_ended()) or []


async def outcome(segundo: Segundo, function: Any, *args: Any) -> dict[str, Any]:
    """The record of a call, the ledger's first, once it has ended; its error and result as data."""
    await segundo.submit(function, *args)
    (record,) = await ended(1)
    return {**record, **{key: json.loads(record[key]) for key in ("error", "result") if record[key]}}


class Watched:
    """An app; `look` is called as the first byte of an answer goes out, after the last, and at the end."""

    def __init__(self, app: ASGIApp, look: Callable[[str], object]) -> None:
        self._app = app
        self._look = look

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._look("first byte")
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._look("last byte")

        try:
            await self._app(scope, receive, watched)
        finally:
            self._look("over")


def messages(caplog: Any, level: str = "WARNING") -> Sequence[str]:
    """What was logged at a level, in order."""
    return [record.getMessage() for record in caplog.records if record.levelname == level]
