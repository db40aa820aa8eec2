"""`segundo worker`: an app that runs its records and serves nobody."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from segundo.app import Segundo
from segundo.cli.lifespan import Lifespan
from segundo.cli.loading import AppFailed, load, segundo_of
from segundo.errors import SegundoError

logger = logging.getLogger("segundo")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
AT_ONCE = 2.0  # seconds that a worker has to say that it stops at once


def work(target: str, *, factory: bool, queues: Sequence[str] | None, concurrency: int | None) -> None:
    """Run the records of the app at `target` until a signal comes. Raises SegundoError."""
    _log_to_standard_error()
    app = load(target, factory=factory)
    segundo = segundo_of(app, target)
    segundo.run_only(queues=queues, concurrency=concurrency)
    asyncio.run(Worker(app, segundo, target).run())


class Worker:
    """One app's life in this process. The first signal ends it in good order, the second at once."""

    def __init__(self, app: Any, segundo: Segundo, target: str) -> None:
        self._app = app
        self._segundo = segundo
        self._target = target
        self._asked = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._signalled, number)
        lifespan = Lifespan(self._app)
        await self._attempt(lifespan.start_up(), "start")
        logger.info("worker %d runs %s; Ctrl-C stops it", os.getpid(), self._target)
        await self._asked.wait()
        await self._attempt(lifespan.shut_down(), "stop")
        logger.info("worker %d has stopped", os.getpid())

    async def _attempt(self, step: Any, verb: str) -> None:
        try:
            await step
        except SegundoError:
            raise
        except Exception as error:
            raise AppFailed(f"{self._target} did not {verb}", error) from error

    def _signalled(self, number: signal.Signals) -> None:
        if not self._asked.is_set():
            logger.info(
                "%s: claims no more; what runs has %g s to end", number.name, self._segundo.settings.grace
            )
            self._asked.set()
        else:
            logger.warning("%s again: stops at once; another process takes over what ran here", number.name)
            self._leaving = asyncio.ensure_future(self._leave())

    async def _leave(self) -> NoReturn:
        """Not by way of the app, which may be what does not end. Our records go to whoever finds us dead."""
        try:
            async with asyncio.timeout(AT_ONCE):
                await self._segundo.leave()
        except (SegundoError, TimeoutError) as error:
            logger.warning("what ran here will count as crashed: %s", error)
        finally:
            logging.shutdown()
            sys.stdout.flush()
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
