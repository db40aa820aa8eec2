"""Between an event loop and the ledger's writer: many changes or answers, one wake-up; no endless waiting.

A thread that is woken wants the interpreter, and a busy loop hands it over and waits for it back many times
in each turn, at more than the work costs. So each side is woken once, when all that it is to do is there.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from segundo.errors import LedgerUnavailable
from segundo.ledger.changes import Change, RecordCalls
from segundo.ledger.posting import Posted

T = TypeVar("T")

Answer = tuple["asyncio.Future[Any]", Any, BaseException | None]


class Answers:
    """The futures of one event loop that wait for the writer."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, patience: float, *, post: Callable[[list[Posted]], None]
    ) -> None:
        self.loop = loop
        self._post = post
        self._asked: list[Posted] = []
        self._patience = patience
        self._arrived: deque[Answer] = deque()
        self._woken = False
        self._waiting: deque[tuple[float, asyncio.Future[Any], RecordCalls]] = deque()  # oldest first
        self._sweeping = False

    def ask(self, change: Change[T]) -> "asyncio.Future[T]":
        """Post a change at the end of this turn of the loop; the future is its answer."""
        future: asyncio.Future[T] = self.loop.create_future()
        if not self._asked:
            self.loop.call_soon(self.send)
        self._asked.append((change, partial(self.give, future)))
        return future

    def send(self) -> None:
        """Post what was asked now."""
        asked, self._asked = self._asked, []
        if asked:
            self._post(asked)

    def close(self) -> None:
        """Post what was asked, and let go of the writer: a timer of ours may outlive it."""
        self.send()
        self._post = _closed

    def give(self, future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
        """In the writer's thread: an answer, of which the loop hears with the next `wake`."""
        self._arrived.append((future, result, error))

    def wake(self) -> None:
        """In the writer's thread: the answers of a batch are all given."""
        if self._arrived and not self._woken:
            self._woken = True  # set back by the loop before it looks, so that nothing given later is missed
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
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()

    def watch(self, recorded: "asyncio.Future[Any]", change: RecordCalls) -> None:
        """From now on `recorded` does not wait longer than the patience.

        One timer watches over all that wait: one for each would cost a busy loop more than it gives.
        """
        self._waiting.append((self.loop.time() + self._patience, recorded, change))
        if not self._sweeping:
            self._sweeping = True
            self.loop.call_later(self._patience, self._sweep)

    def _sweep(self) -> None:
        now = self.loop.time()
        while self._waiting:
            deadline, recorded, change = self._waiting[0]
            if deadline > now and not recorded.done():
                self.loop.call_at(deadline, self._sweep)
                return
            self._waiting.popleft()
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


def _closed(asked: list[Posted]) -> None:
    for _, done in asked:
        done(None, LedgerUnavailable("the ledger is closed"))
