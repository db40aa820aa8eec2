"""From the ledger's threads back to an event loop: many answers, one wake-up, and no endless waiting."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

Answer = tuple["asyncio.Future[Any]", Any, BaseException | None]


class Answers:
    """The futures of one event loop that wait for the writer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, patience: float) -> None:
        self.loop = loop
        self._patience = patience
        self._arrived: deque[Answer] = deque()
        self._woken = False
        self._waiting: dict[asyncio.Future[Any], tuple[float, Callable[[], None]]] = {}
        self._sweeping = False

    def give(self, future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
        """In the writer's thread: the loop is woken once for all that arrive before it looks."""
        self._arrived.append((future, result, error))
        if not self._woken:  # set back by the loop before it looks, so that nothing appended later is missed
            self._woken = True
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self.loop.call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        self._woken = False
        while self._arrived:
            future, result, error = self._arrived.popleft()
            if not future.done():
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)

    async def within_patience(self, future: "asyncio.Future[T]", give_up: Callable[[], None]) -> T:
        """The future's result; `give_up`, which ends it, is called if that takes longer than the patience.

        One timer watches over all that wait: one for each would cost a busy loop more than it gives.
        """
        self._waiting[future] = self.loop.time() + self._patience, give_up
        if not self._sweeping:
            self._sweeping = True
            self.loop.call_later(self._patience, self._sweep)
        try:
            return await future
        finally:
            del self._waiting[future]

    def _sweep(self) -> None:
        now = self.loop.time()
        for deadline, give_up in list(self._waiting.values()):  # oldest first: each waits equally long
            if deadline > now:
                self.loop.call_at(deadline, self._sweep)
                return
            give_up()
        self._sweeping = False
