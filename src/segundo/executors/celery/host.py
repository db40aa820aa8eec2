"""The app in a Celery worker's process: its lifespan and its event loop, in a thread beside Celery's."""

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar, cast

from starlette.types import ASGIApp

from segundo.executors.celery.apps import add_task, complete, hurting, over_rabbitmq
from segundo.executors.celery.shelf import load
from segundo.ledger import Settlement
from segundo.lifespan import Lifespan
from segundo.record import State

logger = logging.getLogger("segundo")

PATIENCE = 60.0  # seconds beyond the grace that an app has to stop
POOLS = ("prefork", "thread", "solo")

T = TypeVar("T")


class Begun(Protocol):
    """What runs records in the process, once it has begun."""

    async def wind_down(self) -> None: ...


class NotSucceeded(Exception):
    """The record's attempt ended otherwise; the ledger has the whole story, the worker's log this line."""


class Host:
    """Runs records in each process of a Celery worker, for `celery` apps. Called by Celery, from any thread.

    `app`: what the lifespan is sent to. `become`: makes the app's Segundo a worker, before its start;
    `begin`: waits until it has begun. `take`: claims and runs a record, in whichever thread.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        become: Callable[[], None],
        begin: Callable[[], Awaitable[Begun]],
        take: Callable[[str], Settlement | None],
    ) -> None:
        self._app = app
        self._begin = (become, begin)
        self._take = take
        self._life: Life | None = None
        self._word: tuple[int, int] | None = None  # a pipe: what is written into it, all of the worker sees
        self._starting = threading.Lock()
        self._round = Round()
        self._ours = False  # whether this process is, or is a child of, a worker of one of our Celery apps
        self._celeries: list[Any] = []

    def serve(self, celery: Any) -> None:
        """Let the workers of this Celery app run our records."""
        add_task(celery, self.run)
        self._celeries.append(celery)
        signals = load("celery.signals")
        signals.worker_init.connect(self._worker_begins, weak=False)
        signals.worker_shutting_down.connect(self._worker_stops, weak=False)
        signals.worker_process_init.connect(self._process_begins, weak=False)
        signals.worker_process_shutdown.connect(self._process_ends, weak=False)
        signals.worker_shutdown.connect(self._process_ends, weak=False)

    def run(self, id: str) -> None:
        """Run the record that a message names. Celery acknowledges the message, whatever this raises.

        What it raises is for the worker's log and for Flower.
        """
        try:
            settlement = self._living().run(lambda: self._take(id))
        finally:
            self._round.once_more()
        if settlement is not None and settlement.state is State.SUCCEEDED:
            return
        exceptions = load("celery.exceptions")
        if settlement is None:
            raise exceptions.Ignore
        if settlement.state is State.QUEUED:
            raise exceptions.Retry(settlement.reason or "put back", when=settlement.delay)
        raise NotSucceeded(f"{settlement.state}: {settlement.reason}")

    def _new_life(self) -> "Life":
        return Life(self._app, *self._begin, told=None if self._word is None else self._word[0])

    def _living(self) -> "Life":
        with self._starting:
            if self._life is None or self._life.pid != os.getpid():
                self._life = self._new_life()
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
            self._word = os.pipe()  # its children inherit it
            self._round.begin(sender)
            complete(sender.app)
            for advice in hurting(sender.app.conf):
                logger.warning("Celery setting %s", advice)

    def _worker_stops(self, **_: Any) -> None:
        """SIGTERM has come. Celery now waits for what runs, for ever: the processes have to know of it."""
        if self._word is not None:
            os.write(self._word[1], b".")  # nobody reads it, so everybody sees it

    def _process_begins(self, **_: Any) -> None:
        """A child of a prefork worker, or a solo one. Celery ends children that start slowly: do not wait."""
        if self._ours:
            with self._starting:
                self._life = self._new_life()

    def _process_ends(self, **_: Any) -> None:
        life = self._life
        if life is not None and life.pid == os.getpid():
            self._life = None
            life.stop()


class Round:
    """Has Celery's loop come round once more, where it runs the task itself: in a solo worker over RabbitMQ.

    It runs a task amid what it does before it looks whether anything has come, and puts off the
    acknowledgement until after that; without it nothing comes, and it would wait for a timer of its own
    (test_a_solo_worker_goes_on_without_waiting_for_a_timer).
    """

    def __init__(self) -> None:
        self._worker: Any = None

    def begin(self, worker: Any) -> None:
        """In the process of the worker, which may be the parent of those that run tasks."""
        if over_rabbitmq(worker.app.conf):
            self._pid = os.getpid()
            self._out, self._in = os.pipe()
            os.set_blocking(self._in, False)
            self._worker = worker

    def once_more(self) -> None:
        hub = getattr(self._worker, "hub", None)
        if (
            hub is None
            or os.getpid() != self._pid
            or threading.current_thread() is not threading.main_thread()
        ):
            return
        if self._out not in hub.readers:  # it has a new connection, or this is the first task
            hub.add_reader(self._out, os.read, self._out, 4096)
        with suppress(BlockingIOError):  # it is full, and so will be seen
            os.write(self._in, b".")


class Aside:
    """Does one thing after another in a thread beside the one that waits for it."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] | None = None

    def run(self, work: Callable[[], T]) -> T:
        """Wait for `work`. If that is interrupted, the work goes on, and its thread ends with it."""
        if self._work is None:
            self._work = SimpleQueue()
            threading.Thread(target=_serve, args=(self._work,), name="segundo-slot", daemon=True).start()
        answer: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
        self._work.put(lambda: answer.put(_outcome(work)))
        try:
            result, error = answer.get()
        except BaseException:
            self._work.put(None)
            self._work = None
            raise
        if error is not None:
            raise error
        return cast(T, result)


def _serve(work: "SimpleQueue[Callable[[], None] | None]") -> None:
    while (step := work.get()) is not None:
        step()


def _outcome(work: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return work(), None
    except BaseException as error:  # raised again in the thread that waits
        return None, error


class Life:
    """One lifespan of the app, on an event loop in a thread of its own.

    `told`: a file that can be read once the worker is to stop.
    """

    def __init__(
        self,
        app: ASGIApp,
        become: Callable[[], None],
        begin: Callable[[], Awaitable[Begun]],
        *,
        told: int | None,
    ) -> None:
        self.pid = os.getpid()
        self._app = app
        self._become = become
        self._begin = begin
        self._told = told
        self._aside = Aside()
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._live, name="segundo-loop", daemon=True)
        self._thread.start()

    def started(self) -> None:
        """Wait for the start-up. Raises what it raised."""
        self._started.wait()
        if self._error is not None:
            raise self._error

    def run(self, work: Callable[[], T]) -> T:
        """Do `work` here, but for the main thread, where signals raise: what runs there would end by one."""
        if threading.current_thread() is threading.main_thread():
            return self._aside.run(work)
        return work()

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
            runtime = await self._begin()
        except BaseException as error:
            logger.exception("the app did not start in this worker process")
            self._error = error
            return
        finally:
            self._started.set()
        if self._told is not None:
            self._loop.add_reader(self._told, self._wind_down, self._told, runtime)
        await self._asked.wait()
        try:
            await lifespan.shut_down()
        except Exception:  # the app's own; this thread ends with it, and nobody waits to hear of it
            logger.exception("the app did not stop in good order in this worker process")

    def _wind_down(self, told: int, runtime: Begun) -> None:
        self._loop.remove_reader(told)
        self._winding_down = self._loop.create_task(runtime.wind_down())
