"""`segundo worker`: an app that runs its records and serves nobody."""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Sequence
from typing import Any, NoReturn

from segundo.app import Segundo
from segundo.cli.loading import AppFailed, load, segundo_of
from segundo.errors import SegundoError
from segundo.lifespan import Lifespan

logger = logging.getLogger("segundo")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
AT_ONCE = 2.0  # seconds that a worker has to tell the ledger that it stops at once


def work(target: str, *, factory: bool, queues: Sequence[str] | None, concurrency: int | None) -> None:
    """Run the records of the app at `target` until a signal comes. Raises SegundoError."""
    _log_to_standard_error()
    app = load(target, factory=factory)
    segundo = segundo_of(app, target)
    segundo.run_only(queues=queues, concurrency=concurrency)
    asyncio.run(_run(app, segundo, target))


async def _run(app: Any, segundo: Segundo, target: str) -> None:
    await Worker(app, segundo, target).run()


class Worker:
    """One app's life in this process. The first signal ends it in good order, the second at once."""

    def __init__(self, app: Any, segundo: Segundo, target: str) -> None:
        self._app = app
        self._segundo = segundo
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._asked = asyncio.Event()
        self._signals = 0

    async def run(self) -> None:
        for number in SIGNALS:
            # Not the loop's own handlers: they would wait for a task that blocks it.
            signal.signal(number, self._signalled)
        lifespan = Lifespan(self._app)
        await self._attempt(lifespan.start_up(), "start")
        logger.info("worker %d runs %s; Ctrl-C stops it", os.getpid(), self._target)
        await self._asked.wait()
        await self._attempt(lifespan.shut_down(), "stop")
        logger.info("worker %d has stopped", os.getpid())

    async def _attempt(self, step: Awaitable[None], verb: str) -> None:
        try:
            await step
        except SegundoError:
            raise
        except Exception as error:
            raise AppFailed(f"{self._target} did not {verb}", error) from error

    def _signalled(self, number: int, _: object) -> None:
        name = signal.Signals(number).name
        self._signals += 1
        if self._signals == 1:
            self._loop.call_soon_threadsafe(self._stop, name)
        elif self._signals == 2:
            self._loop.call_soon_threadsafe(self._stop_at_once, name)
            threading.Thread(target=_end_soon, daemon=True).start()
        else:
            os._exit(1)

    def _stop(self, signal_name: str) -> None:
        grace = self._segundo.settings.grace
        logger.info("%s: claims no more; what runs has %g s to end", signal_name, grace)
        self._asked.set()

    def _stop_at_once(self, signal_name: str) -> None:
        """Not by way of the app, which may be what does not end. Our records go to whoever finds us dead."""
        logger.warning("%s again: stops at once; another process takes over what ran here", signal_name)
        self._leaving = asyncio.ensure_future(self._leave())

    async def _leave(self) -> NoReturn:
        try:
            await self._segundo.leave()
        except SegundoError as error:
            logger.warning("what ran here will count as crashed: %s", error)
        finally:
            logging.shutdown()
            sys.stdout.flush()
            os._exit(1)


def _end_soon() -> None:
    """The ledger or the loop may not answer: then what ran here counts as crashed."""
    time.sleep(AT_ONCE)
    os._exit(1)


class _WhereNobodyElseDoes(logging.StreamHandler[Any]):
    """To standard error, for as long as the app has set up no logging of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            super().emit(record)


def _log_to_standard_error() -> None:
    handler = _WhereNobodyElseDoes()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    ours = logging.getLogger("segundo")
    ours.addHandler(handler)
    if ours.level == logging.NOTSET:
        ours.setLevel(logging.INFO)
