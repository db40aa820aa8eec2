"""The life of an app's runtime: started by a lifespan or the first request, and stopped with the app."""

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import Scope

from segundo.edge import check_loop, from_test_client
from segundo.runtime import Runtime

logger = logging.getLogger("segundo")


class Life:
    """Has the app's runtime between its start and its stop.

    `make`: makes one, for the running loop; told whether the app is being tested.
    """

    def __init__(self, make: Callable[[bool], Runtime]) -> None:
        self.runtime: Runtime | None = None
        self.state: Mapping[str, Any] = {}  # what the lifespan yields
        self._make = make
        self._turn: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        self._testing = False
        self._watched = False  # by the edge, which will say when the start-up is over

    def serving(self, scope: Scope | None) -> Runtime | None:
        """What serves this request, or, without one, a call outside; None: it is to be started."""
        if scope is not None and from_test_client(scope):
            self._testing = True
        runtime = self.runtime
        if runtime is None or not runtime.serves(testing=self._testing):
            return None
        return runtime if scope is None or self._watched or runtime.started else None

    async def started(self, scope: Scope | None = None) -> Runtime:
        """The runtime of this loop; started now, with a word about it, if the app's lifespan did not."""
        if self.serving(scope) is None:
            async with self._turn_to_start():
                if self.serving(scope) is None:
                    await self._start_late(serve=scope is not None)
        assert self.runtime is not None
        return self.runtime

    def _turn_to_start(self) -> asyncio.Lock:
        """One start at a time. A lock is bound to the loop where two first met at it, and in tests one loop
        follows another."""
        check_loop()
        loop = asyncio.get_running_loop()
        if self._turn is None or self._turn[0] is not loop:
            self._turn = loop, asyncio.Lock()
        return self._turn[1]

    async def _start_late(self, *, serve: bool) -> None:
        """Open what the lifespan has not opened, or not yet: a start-up may submit before it comes to us.

        Only a request also begins to claim, and only if nobody will say when the start-up is over: a script
        that submits calls and ends shall not take them with it.
        """
        if self.runtime is not None and not self.runtime.serves(testing=self._testing):
            runtime, self.runtime = self.runtime, None
            await runtime.abandon()
        if self.runtime is None:
            self.runtime = await self._open()
        if serve and not self._watched:
            self.runtime.start_without_lifespan()
            await self.runtime.start()

    async def _open(self) -> Runtime:
        check_loop()
        runtime = self._make(self._testing)
        await runtime.open()
        runtime.settings.log()
        _tell(f"ledger {runtime.ledger.name}{' (test mode: calls run inline)' if runtime.inline else ''}")
        return runtime

    # By the lifespan

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncGenerator[None]:
        """Within the app's own lifespan: open after it has started, close before it stops."""
        runtime = await self._started_by_lifespan()
        if (
            not self._watched
        ):  # an outer app entered this lifespan itself, and does not say when it has started
            await runtime.start()
        try:
            yield
        finally:
            await self.close()

    async def _started_by_lifespan(self) -> Runtime:
        runtime = await self.started()
        runtime.in_lifespan = True
        return runtime

    # By the edge

    def watch(self, scope: Scope) -> None:
        """The app starts up by the lifespan protocol: claiming waits for its end."""
        self._watched = True
        self.state = scope.get("state", {})
        self._testing = self._testing or from_test_client(scope)

    async def up(self) -> None:
        """After the whole start-up: open what a lifespan has not that was put in the place of ours; claim."""
        await (await self._started_by_lifespan()).start()

    async def drain(self) -> None:
        """Before anything else shuts down: claim no more, and let what runs end."""
        if self.runtime is not None:
            await self.runtime.stop()

    async def close(self) -> None:
        """The app stops: nothing runs any more. What comes later starts it anew."""
        await self.drain()
        if self.runtime is not None:
            runtime, self.runtime = self.runtime, None
            await runtime.close()
        self._watched = False  # the next start may be another's, as in tests


def _tell(line: str) -> None:
    """Say it where it is seen: most servers set up no logging but their own."""
    if logger.hasHandlers():
        logger.info(line)
    else:
        print(f"Segundo: {line}", file=sys.stderr)  # noqa: T201  # there is no logging to say it through
