"""Who waits for records to change: after a commit, one look at the file for all who wait."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context

from segundo.errors import LedgerUnavailable
from segundo.record import LIVE, Record

logger = logging.getLogger("segundo.ledger")

PAUSE = 0.002  # seconds between two looks, when commits follow one another
AFTER_FAILURE = 1.0

Glance = tuple[object, ...]  # the id, the state, and what else changes with a record as it goes on


class Watcher:
    """One who waits. `glances`: what the last look saw of its records, by id."""

    __slots__ = ("arrived", "glances", "ids")

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids
        self.arrived = asyncio.Event()
        self.glances: dict[str, Glance] = {}


class Watch:
    """The watchers of one event loop. `glance` and `read` look at the file, off the loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        glance: Callable[[Sequence[str]], Awaitable[Sequence[Glance]]],
        read: Callable[[Sequence[str]], Awaitable[Sequence[Record]]],
    ) -> None:
        self.loop = loop
        self._glance = glance
        self._read = read
        self._watchers: set[Watcher] = set()
        self._commits = 0
        self._woken = False
        self._look_again = False
        self._closed = False
        self._looking: asyncio.Task[None] | None = None

    def committed(self, commits: int) -> None:
        """In the writer's thread: so many transactions were committed here by now."""
        if commits != self._commits:
            self._commits = commits
            self.wake()

    def wake(self) -> None:
        """In the writer's thread: something was committed, here or by another process."""
        if self._watchers and not self._woken:
            self._woken = True  # set back by the loop before it looks, so that no later commit is missed
            self._call(self._begin)

    def close(self) -> None:
        """Nothing more comes, and who waits is told."""
        self._call(self._close)

    def _call(self, step: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(step)

    async def changes(self, ids: Sequence[str]) -> AsyncGenerator[Record]:
        """Each record as it is, and again when it has changed; ends when all have ended or are gone."""
        watcher = Watcher(ids)
        seen: dict[str, Glance] = {}
        self._watchers.add(watcher)
        try:
            self._begin()
            while True:
                await watcher.arrived.wait()
                watcher.arrived.clear()
                if self._closed:
                    raise LedgerUnavailable("the ledger was closed while a record was waited for")
                before, seen = seen, watcher.glances
                changed = [id for id, glance in seen.items() if before.get(id) != glance]
                for record in await self._read(changed) if changed else ():
                    yield record
                if all(_has_ended(glance) for glance in seen.values()):
                    return
        finally:
            self._watchers.discard(watcher)

    # On the loop

    def _begin(self) -> None:
        self._woken = False
        self._look_again = True
        if self._looking is None or self._looking.done():
            self._looking = self.loop.create_task(self._look(), context=Context())

    def _close(self) -> None:
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
        for watcher in self._watchers:
            watcher.arrived.set()

    async def _look(self) -> None:
        while self._look_again and self._watchers:
            self._look_again = False
            watchers = tuple(self._watchers)  # who comes during the look has asked for another
            try:
                glances = await self._glance([id for watcher in watchers for id in watcher.ids])
            except LedgerUnavailable as error:
                logger.warning("who waits for a record to end waits on: %s", error)
                self._look_again = True
                await asyncio.sleep(AFTER_FAILURE)
                continue
            seen = {str(glance[0]): glance for glance in glances}
            for watcher in watchers:
                watcher.glances = {id: seen[id] for id in watcher.ids if id in seen}
                watcher.arrived.set()
            await asyncio.sleep(PAUSE)


def _has_ended(glance: Glance) -> bool:
    """What is in no state that we know is none of our records, and nothing more comes of it."""
    return glance[1] not in LIVE
