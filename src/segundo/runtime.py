"""What works for an app while it runs: the ledger, who runs records, and the housekeeping between them."""

import asyncio
import logging
import random
import secrets
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from contextvars import Context, ContextVar
from typing import Any, ClassVar

from starlette.background import BackgroundTask

from segundo import collector
from segundo.context import Home
from segundo.errors import LedgerError
from segundo.executors.celery.by_message import ByMessage
from segundo.executors.celery.relay import Relay
from segundo.executors.celery.routes import Routes, Share
from segundo.executors.embedded import Embedded
from segundo.ledger import Settlement
from segundo.ledger.sqlite import MEMORY, SQLiteLedger
from segundo.ledger.stores import ledger_at, left_behind
from segundo.ledger.written import WrittenLedger
from segundo.names import Names
from segundo.outcomes import Outcomes
from segundo.record import Call, Record, State
from segundo.runner import Attempt, Runner, Stop, log_failure
from segundo.settings import Settings
from segundo.signature import name_of
from segundo.threads import Threads

logger = logging.getLogger("segundo")

RESCUE_EVERY = 5.0  # seconds between looks for dead processes
PRUNE_EVERY = 300.0
RELAY_PAUSE = 0.05  # seconds from another process's change until a relay here looks for what to publish
STAND_IN_PAUSE = 1.0  # … in a Celery worker's process
PRUNE_AT_ONCE = 1000  # rows of one transaction, so that requests need not wait long
RELEASE_AGAIN = 1.0  # seconds until a release that failed is tried again
IN_PROCESS_THREADS = 64  # for `def` calls that requests run themselves; AnyIO's 40 serve the requests


class Runtime:
    """One app's ledger and executor, on one event loop."""

    inline = False  # whether calls run before their request is over, and not by an executor of their own
    in_lifespan = False  # whether the app's lifespan will close it
    runner: ClassVar[type[Runner]] = Runner

    def __init__(
        self,
        settings: Settings,
        names: Names,
        home: Home,
        carry: Mapping[str, ContextVar[Any]],
        routes: Routes | None = None,
    ) -> None:
        self.owner = secrets.token_hex(8)
        self.ledger = self._make_ledger(settings)
        self._loop = asyncio.get_running_loop()
        self.settings = settings
        self._threads = Threads(max(settings.concurrency, 1))
        self._request_threads = Threads(IN_PROCESS_THREADS, name="segundo-in-process")
        self._runner = self._make_runner(names, home, carry)
        self.outcome = Outcomes(self.ledger, names).of
        self._relays = self._make_relays(routes)
        self._embedded = self._make_executor(routes)
        self._housekeeping: list[asyncio.Task[None]] = []
        self._late: set[asyncio.Task[None]] = set()
        self._releasing: list[Record] = []
        self._left = False

    def _make_ledger(self, settings: Settings) -> WrittenLedger:
        return ledger_at(
            settings.ledger, durability=settings.durability, record_timeout=settings.record_timeout
        )

    def _make_runner(self, names: Names, home: Home, carry: Mapping[str, ContextVar[Any]]) -> Runner:
        return self.runner(
            names,
            self._threads,
            home=home,
            carry=carry,
            chance=random.Random(),
            progress=self.ledger.progress,
        )

    def _make_relays(self, routes: Routes | None) -> Sequence[Relay]:
        if routes is None:
            return ()
        pause = STAND_IN_PAUSE if self.settings.by_message else RELAY_PAUSE
        return [Relay(self.ledger, route, window=self.settings.window, pause=pause) for route in routes]

    def _make_executor(self, routes: Routes | None) -> Embedded:
        settings = self.settings
        if settings.by_message:
            return ByMessage(self.ledger, self.owner, self._runner, later=self._look_in)
        here = Share(settings.queues) if settings.queues is not None or routes is None else routes.here
        return Embedded(
            self.ledger,
            self.owner,
            self._runner,
            concurrency=0 if here.empty else settings.concurrency,
            queues=here.queues,
            but=here.but,
        )

    def _look_in(self, seconds: float) -> None:
        for relay in self._relays:
            relay.look_in(seconds)

    def take(self, id: str) -> Settlement | None:
        """Run the record that a message names, and wait; in a thread of a Celery worker's process only."""
        assert isinstance(self._embedded, ByMessage)
        return self._embedded.take(id)

    async def wind_down(self) -> None:
        """A Celery worker stops, but its processes only when all that runs has ended: see to it that it does.

        What is killed from now on counts no crash.
        """
        assert isinstance(self._embedded, ByMessage)
        await self._leave()
        await self._embedded.wind_down(self.settings.grace)

    def serves(self, *, testing: bool) -> bool:
        """Whether requests of the running loop, and of this mode, may use this runtime."""
        return not testing and asyncio.get_running_loop() is self._loop

    async def open(self) -> None:
        """Open the ledger, join it, and take over from the dead; nothing is claimed yet."""
        await self.ledger.open()
        await self.ledger.join(self.owner)
        await self._rescue()
        before = await asyncio.to_thread(left_behind, self.ledger.name)
        if before is not None:
            logger.warning("records wait in %s: segundo move %s NEW takes them here", before, before)

    async def start(self) -> None:
        """Begin to claim, and to keep house."""
        await self._embedded.start()
        for relay in self._relays:
            await relay.start()
        if not self._housekeeping:
            self._housekeeping = [
                asyncio.create_task(self._repeat(RESCUE_EVERY, self._rescue), name="segundo-rescue"),
                asyncio.create_task(self._repeat(PRUNE_EVERY, self._prune), name="segundo-prune"),
            ]
            if self.settings.freeze:
                collector.spare()

    def start_without_lifespan(self) -> None:
        """A request came, and nobody runs the app's lifespan."""
        logger.warning("the app's lifespan did not run; Segundo starts now, and cannot stop in good order")

    async def stop(self) -> None:
        """Claim no more, and let what runs end within the grace."""
        self._embedded.claim_no_more()  # before anything is awaited, during which a slot may become free
        for task in self._housekeeping:
            task.cancel()
        await asyncio.gather(*self._housekeeping, return_exceptions=True)
        self._housekeeping = []
        await self._leave()  # first, so that what a kill cuts off during the grace is not counted as a crash
        await self._finish_late()
        self._hand_over()
        await self._embedded.stop(grace=self.settings.grace)
        for relay in self._relays:
            await relay.stop()

    @property
    def started(self) -> bool:
        """Whether it claims, or does what it has instead of claiming."""
        return bool(self._housekeeping)

    async def _leave(self) -> None:
        # Once: if the ledger does not take it in time, another process finds us dead, and does it for us.
        if not self._left:
            self._left = True
            with suppress(LedgerError, TimeoutError):
                async with asyncio.timeout(self.settings.record_timeout):
                    await self.ledger.leave(self.owner)

    async def close(self) -> None:
        await self._leave()
        self._threads.close()
        self._request_threads.close()
        await self.ledger.close()

    async def abandon(self) -> None:
        """Close after the loop that it ran on has gone: what runs there cannot be stopped any more."""
        self._housekeeping = []
        await self.close()

    async def find(self, id: str) -> Record | None:
        found = await self.ledger.select(ids=[id])
        return found[0].hiding() if found else None

    async def cancel(self, id: str) -> Record:
        """Cancel what does not run, or ask for it; who runs it, here or elsewhere, hears of it at once."""
        return (await self.ledger.cancel(id)).hiding()

    def record(self, calls: Sequence[Call]) -> Awaitable[Sequence[Record]]:
        return self.ledger.record(calls, owner=self.owner)

    async def release(self, records: Sequence[Record]) -> None:
        """The request is over. Nothing here awaits, so that a cancelled request releases too.

        What all requests of this turn of the loop held is handed over together.
        """
        self._release(records)

    async def forget(self, records: Sequence[Record]) -> None:
        """The request failed after all, with nothing sent: its records are taken back."""
        with suppress(LedgerError):  # the ledger goes on trying, before anything else that it does
            await self.ledger.forget(self.owner, [record.id for record in records])

    def _release(self, records: Sequence[Record]) -> None:
        if not self._releasing:
            self._loop.call_soon(self._hand_over)
        self._releasing += records

    def _hand_over(self) -> None:
        """Release; what the executor has free slots for is claimed in the same step."""
        records, self._releasing = self._releasing, []
        if records:
            reserved = self._embedded.reserve(records)
            started = asyncio.ensure_future(self.ledger.start(self.owner, records, limit=len(reserved)))
            started.add_done_callback(lambda done: self._handed_over(done, records, reserved))

    def _handed_over(
        self, done: "asyncio.Future[list[Record]]", records: Sequence[Record], reserved: Sequence[Record]
    ) -> None:
        if done.cancelled() or done.exception() is not None:
            self._embedded.begin([], reserved)
            logger.warning("a release is tried again in %g s: %s", RELEASE_AGAIN, done)
            self._loop.call_later(RELEASE_AGAIN, self._release, records)
            return
        started = done.result()
        self._embedded.begin(started, reserved)
        if len(started) < len(records):
            begun = {record.id for record in started}
            self._wake([record for record in records if record.id not in begun])

    def _wake(self, records: Sequence[Record]) -> None:
        self._embedded.wake(records)
        for relay in self._relays:
            relay.wake(records)

    async def begin(self, records: Sequence[Record]) -> None:
        """These were recorded outside a request and may run at once."""
        self._wake(records)

    def later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Go on with what a request has left to do; a stop waits for it within the grace."""
        task = asyncio.get_running_loop().create_task(work)
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        return task

    async def _finish_late(self) -> None:
        loop = asyncio.get_running_loop()
        if late := [task for task in self._late if task.get_loop() is loop]:
            await asyncio.wait(late, timeout=self.settings.grace)

    def in_thread(self, function: Callable[[], Any]) -> Awaitable[Any]:
        """Call what a request runs in process in a thread that serves no requests."""
        return self._request_threads.run(function)

    # What requests run in process, for those who look on

    def in_process_begins(self, task: BackgroundTask) -> None:
        """This call is about to run."""

    def in_process_failed(self, task: BackgroundTask, error: Exception) -> None:
        """It raised; the next runs all the same."""
        name = name_of(getattr(task, "func", task))
        logger.error("%s, which ran in process, failed", name, exc_info=error)

    def in_process_over(self) -> None:
        """All that the request had have run."""

    async def _repeat(self, every: float, step: Any) -> None:
        while True:
            await asyncio.sleep(every)
            try:
                await step()
            except LedgerError as error:
                logger.warning("housekeeping is put off: %s", error)

    async def _rescue(self) -> None:
        for record in await self.ledger.rescue():
            name = record.printable_task
            logger.warning("rescued %s %s from a dead process: %s", name, record.id, record.state)

    async def _prune(self) -> None:
        while await self.ledger.prune(limit=PRUNE_AT_ONCE) == PRUNE_AT_ONCE:
            pass


class InlineRuntime(Runtime):
    """The test mode: a temporary ledger, and everything that is due runs before the client's call returns."""

    inline = True

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._attempts: dict[str, Attempt] = {}

    def _make_ledger(self, settings: Settings) -> WrittenLedger:
        return SQLiteLedger(MEMORY, durability="normal", record_timeout=settings.record_timeout)

    @property
    def started(self) -> bool:
        return True

    def serves(self, *, testing: bool) -> bool:
        return True  # a TestClient without `with` brings a new loop for each request

    async def start(self) -> None:
        """Nothing claims by itself here."""

    def start_without_lifespan(self) -> None:
        """Nothing goes on here that a stop would have to wait for."""

    async def release(self, records: Sequence[Record]) -> None:
        await self.ledger.release(self.owner, [record.id for record in records])
        await self.drain()

    async def begin(self, records: Sequence[Record]) -> None:
        await self.drain()

    async def drain(self) -> None:
        """Run what is due, one after another, until nothing is."""
        while claimed := await self.ledger.claim(self.owner, limit=1):
            await self._settle(claimed[0], await self._run(claimed[0]))

    async def _run(self, record: Record) -> Settlement:
        attempt = self._attempts[record.id] = self._runner.attempt(record)
        try:
            running = self._runner.run(attempt)
            return await asyncio.get_running_loop().create_task(running, context=Context())
        finally:
            del self._attempts[record.id]

    async def cancel(self, id: str) -> Record:
        record = await super().cancel(id)
        if record.cancel_requested and (attempt := self._attempts.get(id)) is not None:
            attempt.stop(Stop.CANCELLED)
        return record

    async def _settle(self, record: Record, settlement: Settlement) -> None:
        await self.ledger.settle([settlement])
        if settlement.state is State.FAILED:
            log_failure(record, settlement)


Make = Callable[[Settings, Names, Home, Mapping[str, ContextVar[Any]]], Runtime]


def of_tests() -> Make | None:
    """What makes runtimes for the tests of this process; None where pytest has not loaded our plugin.

    Looked up where pytest has put it: the plugin is there before the package, and without it.
    """
    plugin = sys.modules.get("_segundo_pytest")
    return None if plugin is None else plugin.maker()
