"""Segundo's own threads for `def` tasks: bounded, so that they never use up those that serve requests.

They are daemon threads: a `def` cannot be stopped, and one that does not end must not keep its process from
ending (its record is then rescued).
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

# Not an exception in the future: it takes no StopIteration, and a coroutine is not given a GeneratorExit.
Outcome = tuple[Any, BaseException | None]
Work = tuple[asyncio.Future[Outcome], asyncio.AbstractEventLoop, Callable[[], Any]]


class Threads:
    """At most `limit` threads, each started when no idle one is left to take the work."""

    def __init__(self, limit: int, *, name: str = "segundo-task") -> None:
        self._limit = limit
        self._name = name
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._count = 0
        self._counting = threading.Lock()

    async def run(self, function: Callable[[], Any]) -> Any:
        """Call `function` in a thread, and return what it returns or raise what it raises."""
        result, error = await self._hand_over(function)
        try:
            if error is not None:
                raise error
        finally:
            error = None  # its traceback holds this frame
        return result

    def _hand_over(self, function: Callable[[], Any]) -> "asyncio.Future[Outcome]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        self._work.put((future, loop, function))
        if not self._idle.acquire(blocking=False):
            self._start_another()
        return future

    def _start_another(self) -> None:
        with self._counting:
            if self._count >= self._limit:
                return
            self._count += 1
            number = self._count
        threading.Thread(target=self._serve, name=f"{self._name}-{number}", daemon=True).start()

    def close(self) -> None:
        """Let idle threads end; busy ones end after their work."""
        for _ in range(self._limit):
            self._work.put(None)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            future, loop, function = work
            del work
            try:
                outcome: Outcome = function(), None
            except BaseException as error:  # SystemExit too: it is the task's failure, not this thread's end
                outcome = None, error
            self._idle.release()
            _report(loop, future, outcome)
            del future, loop, function, outcome


def _report(loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Outcome]", outcome: Outcome) -> None:
    def settle() -> None:
        if not future.done():
            future.set_result(outcome)

    with suppress(RuntimeError):  # the loop is closed: nobody waits for this outcome, it will be rescued
        loop.call_soon_threadsafe(settle)
