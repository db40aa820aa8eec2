"""From the ledger's threads back to an event loop: many answers, one wake-up, and no endless waiting."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any

from segundo.errors import LedgerUnavailable
from segundo.ledger.sqlite.changes import RecordCalls

Answer = tuple["asyncio.Future[Any]", Any, BaseException | None]


class Answers:
    """The futures of one event loop that wait for the writer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, patience: float) -> None:
        self.loop = loop
        self._patience = patience
        self._arrived: deque[Answer] = deque()
        self._woken = False
        self._waiting: dict[asyncio.Future[Any], tuple[float, RecordCalls]] = {}
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

    def watch(self, recorded: "asyncio.Future[Any]", change: RecordCalls) -> None:
        """From now on `recorded` does not wait longer than the patience, until `unwatch`.

        One timer watches over all that wait: one for each would cost a busy loop more than it gives.
        """
        self._waiting[recorded] = self.loop.time() + self._patience, change
        if not self._sweeping:
            self._sweeping = True
            self.loop.call_later(self._patience, self._sweep)

    def unwatch(self, recorded: "asyncio.Future[Any]") -> None:
        self._waiting.pop(recorded, None)

    def _sweep(self) -> None:
        now = self.loop.time()
        for recorded, (deadline, change) in list(
            self._waiting.items()
        ):  # oldest first, all wait equally long
            if deadline > now:
                self.loop.call_at(deadline, self._sweep)
                return
            self._give_up(recorded, change)
        self._sweeping = False

    def _give_up(self, recorded: "asyncio.Future[Any]", change: RecordCalls) -> None:
        # What nobody holds may be claimed once it is committed: if the writer is at it, only its answer is
        # true.
        if not recorded.done() and (change.give_up() or change.held):
            recorded.set_exception(
                LedgerUnavailable(
                    f"the ledger did not record within {self._patience:g} s; nothing was changed"
                )
            )
