"""The ASGI lifespan protocol, from the server's side."""

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message

from segundo.errors import SegundoError


class LifespanFailed(SegundoError):
    """The app said that it could not start or stop; the message is its own."""


class Lifespan:
    """Starts and stops an app as a server does, so that whatever hangs on that happens."""

    def __init__(self, app: ASGIApp) -> None:
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        scope: dict[str, Any] = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": {},
        }
        self._running = asyncio.ensure_future(app(scope, self._to_app.get, self._from_app.put))

    async def start_up(self) -> None:
        """Return once the app has started. Raises what the app raised, or LifespanFailed."""
        await self._pass("lifespan.startup")

    async def shut_down(self) -> None:
        """Return once the app has stopped. Raises what the app raised, or LifespanFailed."""
        await self._pass("lifespan.shutdown")
        await self._running

    async def _pass(self, kind: str) -> None:
        self._to_app.put_nowait({"type": kind})
        answer = asyncio.ensure_future(self._from_app.get())
        await asyncio.wait([answer, self._running], return_when=asyncio.FIRST_COMPLETED)
        if answer.done() and answer.result()["type"] == f"{kind}.complete":
            return
        await self._running  # an app that fails says so, and then raises: what it raised says more
        said = answer.result().get("message", "") if answer.done() else ""
        answer.cancel()
        raise LifespanFailed(f"the app ended in {kind}: {said}".rstrip(": "))
