"""Where the server meets the app: how a start-up ends, how a shutdown begins, and who is calling."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segundo.errors import ConfigurationError
from segundo.seam import PLACE, Place

ROOT = "segundo.root_path"  # in a request's scope: the root path of the app that has the Segundo
MADE = "segundo.made"  # … the BackgroundTasks that were made by hand for the request
OURS = (ROOT, PLACE, MADE)
BY_ITEM: Any = MutableMapping  # its methods set and delete item by item, as dict's own do not
OVER: Any = object()  # the last in MADE, once the request is over


class Made(Protocol):
    """The BackgroundTasks that were made by hand for a request."""

    async def on_answer(self, status: int) -> None: ...
    async def on_end(self, error: BaseException | None) -> None: ...


class Edge:
    """Sees the app's start-up end and its shutdown begin; tells requests where the app is, and whose."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        place: Place,
        root: Callable[[], str],
        begin: Callable[[Scope], None],
        up: Callable[[], Awaitable[None]],
        drain: Callable[[], Awaitable[None]],
        down: Callable[[], Awaitable[None]],
    ) -> None:
        self.app = app
        self._place = place
        self._root = root
        self._begin = begin
        self._up = up
        self._drain = drain
        self._down = down

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        serve = self._lifespan if scope["type"] == "lifespan" else self._request
        return serve(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        if MADE in scope:  # it stays that of the app, with a Segundo of its own, that this one is mounted in
            scope = _Below(scope)
        made: list[Made] = []
        scope[ROOT] = self._root() or scope.get("root_path", "")  # before a mounted app adds its own
        scope[PLACE] = self._place  # for FastAPI apps below, wherever they are, and BackgroundTasks(request)
        scope[MADE] = made

        def sends(message: Message) -> Awaitable[None]:
            return _answer(made, message, send) if made else send(message)

        try:
            await self.app(scope, receive, sends)
        except BaseException as error:
            await _end(made, error)
            raise
        await _end(made, None)

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


class _Below(dict[str, Any]):
    """The scope of a request below an app with a Segundo: one with that above, but for what is a Segundo's.

    Middleware above finds there what routing below wrote, as the route that a span is named after.
    """

    def __init__(self, above: MutableMapping[str, Any]) -> None:
        super().__init__(above)
        self._above = above

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        if key not in OURS:
            self._above[key] = value

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self._above.pop(key, None)

    update = BY_ITEM.update
    setdefault = BY_ITEM.setdefault
    pop = BY_ITEM.pop


async def _answer(made: Sequence[Made], message: Message, send: Send) -> None:
    if message["type"].endswith("http.response.start"):
        for tasks in made:
            await tasks.on_answer(message["status"])
    await send(message)


async def _end(made: list[Made], error: BaseException | None) -> None:
    ending = [*made]
    made.append(OVER)
    for tasks in ending:
        await tasks.on_end(error)


def desk_of(scope: MutableMapping[str, Any]) -> Any:
    """The Segundo around a request or attempt. Raises ConfigurationError without one."""
    place: Place | None = scope.get(PLACE) or getattr(scope.get("app"), PLACE, None)
    if place is None:
        raise ConfigurationError(
            "BackgroundTasks(request) needs an app with a Segundo: make one with Segundo(app)"
        )
    return place.desk


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
