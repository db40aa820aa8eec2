"""Where the server meets the app: how a start-up ends, how a shutdown begins, and who is calling."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segundo.errors import ConfigurationError
from segundo.seam import PLACE, Place

ROOT = "segundo.root_path"  # in a request's scope: the root path of the app that has the Segundo


class Edge:
    """Sees the app's start-up end and its shutdown begin; tells requests where the app is, and whose."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        place: Place,
        begin: Callable[[Scope], None],
        up: Callable[[], Awaitable[None]],
        drain: Callable[[], Awaitable[None]],
        down: Callable[[], Awaitable[None]],
    ) -> None:
        self.app = app
        self._place = place
        self._begin = begin
        self._up = up
        self._drain = drain
        self._down = down

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "lifespan":
            scope[ROOT] = scope.get("root_path", "")  # before a mounted app adds its own
            scope[PLACE] = self._place  # for FastAPI apps below, wherever they are
            return self.app(scope, receive, send)
        return self._lifespan(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._begin(scope)

        async def receive_and_drain() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._drain()
            return message

        async def send_and_act(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self._up()
            elif message["type"] == "lifespan.shutdown.complete":
                await self._down()
            await send(message)

        await self.app(scope, receive_and_drain, send_and_act)


def check_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        raise ConfigurationError(
            "Segundo runs on asyncio; this server, or this test client, runs the app on trio"
        ) from error


def from_test_client(scope: Scope) -> bool:
    """Servers name their ASGI version; Starlette's TestClient does not. No request can forge that."""
    return "asgi" not in scope
