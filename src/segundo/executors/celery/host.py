"""The app in a Celery worker's process: its lifespan and its event loop, in a thread beside Celery's."""

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp

from segundo.executors.celery.apps import add_task, hurting
from segundo.executors.celery.shelf import load
from segundo.ledger import Settlement
from segundo.lifespan import Lifespan
from segundo.record import State

logger = logging.getLogger("segundo")

PATIENCE = 60.0  # seconds beyond the grace that an app has to stop
POOLS = ("prefork", "thread", "solo")


class NotSucceeded(Exception):
    """The record's attempt ended otherwise; the ledger has the whole story, the worker's log this line."""


class Host:
    """Runs records in each process of a Celery worker, for `celery` apps. Called by Celery, from any thread.

    `app`: what the lifespan is sent to. `become`: makes the app's Segundo a worker, before its start. `take`:
    claims and runs a record, on the loop.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        become: Callable[[], None],
        take: Callable[[str], Awaitable[Settlement | None]],
    ) -> None:
        self._app = app
        self._become = become
        self._take = take
        self._life: Life | None = None
        self._starting = threading.Lock()
        self._ours = False  # whether this process is, or is a child of, a worker of one of our Celery apps
        self._celeries: list[Any] = []

    def serve(self, celery: Any) -> None:
        """Let the workers of this Celery app run our records."""
        add_task(celery, self.run)
        self._celeries.append(celery)
        signals = load("celery.signals")
        signals.worker_init.connect(self._worker_begins, weak=False)
        signals.worker_process_init.connect(self._process_begins, weak=False)
        signals.worker_process_shutdown.connect(self._process_ends, weak=False)
        signals.worker_shutdown.connect(self._process_ends, weak=False)

    def run(self, id: str) -> None:
        """Run the record that a message names. Celery acknowledges the message, whatever this raises.

        What it raises is for the worker's log and for Flower.
        """
        settlement = self._living().run(self._take(id))
        exceptions = load("celery.exceptions")
        if settlement is None:
            raise exceptions.Ignore
        if settlement.state is State.QUEUED:
            raise exceptions.Retry(settlement.reason or "put back", when=settlement.delay)
        if settlement.state is not State.SUCCEEDED:
            raise NotSucceeded(f"{settlement.state}: {settlement.reason}")

    def _living(self) -> "Life":
        with self._starting:
            if self._life is None or self._life.pid != os.getpid():
                self._life = Life(self._app, self._become)
            life = self._life
        try:
            life.started()
        except BaseException:
            with self._starting:  # the next message tries again
                if self._life is life:
                    self._life = None
            raise
        return life

    # Celery's signals

    def _worker_begins(self, sender: Any, **_: Any) -> None:
        self._ours = any(sender.app is celery for celery in self._celeries)
        if self._ours:
            for advice in hurting(sender.app.conf):
                logger.warning("Celery setting %s", advice)

    def _process_begins(self, **_: Any) -> None:
        """A child of a prefork worker, or a solo one. Celery ends children that start slowly: do not wait."""
        if self._ours:
            with self._starting:
                self._life = Life(self._app, self._become)

    def _process_ends(self, **_: Any) -> None:
        life = self._life
        if life is not None and life.pid == os.getpid():
            self._life = None
            life.stop()


class Life:
    """One lifespan of the app, on an event loop in a thread of its own."""

    def __init__(self, app: ASGIApp, become: Callable[[], None]) -> None:
        self.pid = os.getpid()
        self._app = app
        self._become = become
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._live, name="segundo-loop", daemon=True)
        self._thread.start()

    def started(self) -> None:
        """Wait for the start-up. Raises what it raised."""
        self._started.wait()
        if self._error is not None:
            raise self._error

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def stop(self) -> None:
        """Shut the app down, and wait for that."""
        self._started.wait()
        if self._error is None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._asked.set)
            self._thread.join(PATIENCE)

    def _live(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._asked = asyncio.Event()
        try:
            self._become()
            lifespan = Lifespan(self._app)
            await lifespan.start_up()
        except BaseException as error:
            logger.exception("the app did not start in this worker process")
            self._error = error
            return
        finally:
            self._started.set()
        await self._asked.wait()
        try:
            await lifespan.shut_down()
        except Exception:  # the app's own; this thread ends with it, and nobody waits to hear of it
            logger.exception("the app did not stop in good order in this worker process")
