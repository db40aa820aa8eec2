"""The relay: publishes the ids of due records to a broker, off the event loop, for the workers to claim.

The ledger is the outbox. A message is only a hint that a record is due: lost, late or twice it does no harm.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress

from segundo.errors import LedgerError
from segundo.executors.celery.links import BrokerUnavailable
from segundo.executors.celery.publisher import Publisher
from segundo.executors.celery.routes import Route
from segundo.executors.embedded import for_ever
from segundo.ledger import Ledger, Published
from segundo.record import Record
from segundo.threads import Threads

logger = logging.getLogger("segundo")

LEASE = 60.0  # seconds until what was published and not claimed is published again
BATCH = 500
PATIENCE = 5.0  # seconds for each step of the broker's
ASK = 1.0  # seconds between questions whether the broker is still the one that has our messages
CROWD, CROWDS_EVERY = 10, 0.03  # where many come, what comes within so many seconds goes out together
FIRST_LOOK, LONGEST_LOOK = 0.05, 1.0  # seconds between looks whether workers have made room in a full window
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds between tries while the broker or the ledger does not answer


class Relay:
    """Publishes for one Celery app. Any number of processes may have one: the ledger's leases decide.

    `window`: published and unclaimed records of a queue, at most: what is urgent later waits behind no more.
    `pause`: seconds after another process has changed the ledger until it looks. Short in the app's
    processes; Celery's workers, of which there may be many, only stand in for them.
    """

    def __init__(self, ledger: Ledger, route: Route, *, window: int, pause: float) -> None:
        self._ledger = ledger
        self._share = route.share
        self._pause = pause
        self._window = window
        self._threads = Threads(1, name="segundo-relay")
        self._publisher = Publisher(route.celery, patience=PATIENCE, full=window)
        self._work: list[asyncio.Task[None]] = []
        self._woken = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._run: str | None = None  # which run of the broker has our messages
        self._doubt: float | None = None  # since when it may have lost some
        self._last = -LEASE  # when something was published
        self._next_look = FIRST_LOOK
        self._no_room: Sequence[Record] = ()  # leased, and not sent: the broker's queue was full

    async def start(self) -> None:
        if self._work:
            return
        self._loop = asyncio.get_running_loop()
        self._work = [
            asyncio.create_task(for_ever(work), name=f"segundo-{work.__name__}")
            for work in (self._relay, self._ask)
        ]
        self._ledger.listen(self._changed_unseen)
        self._woken.set()

    async def stop(self) -> None:
        """Publish no more. What a broker does not answer stays behind in its thread, and in the ledger."""
        if not self._work:
            return
        self._ledger.unlisten(self._changed_unseen)
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        self._work = []
        if self._timer is not None:
            self._timer.cancel()
        closing = asyncio.ensure_future(self._threads.run(self._publisher.close))
        await asyncio.wait([closing], timeout=FIRST_PAUSE)
        self._threads.close()

    def wake(self, records: Sequence[Record]) -> None:
        """These were just queued here."""
        if not self._work:
            return
        delays = [record.run_at - record.created_at for record in records if record.queue in self._share]
        if delays:
            self.look_in(max(0.0, min(delays)))

    def look_in(self, seconds: float) -> None:
        """Look for what is due in `seconds`, unless a look is planned before."""
        if seconds <= 0:
            self._woken.set()
            return
        moment = self._loop.time() + seconds
        if self._timer is not None and not self._timer.cancelled() and self._timer.when() <= moment:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(moment, self._look)

    def _look(self) -> None:
        self._timer = None
        self._woken.set()

    def _changed_unseen(self) -> None:
        """In a thread of the ledger: another process has changed something."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.look_in, self._pause)

    # The work

    async def _relay(self) -> None:
        pause = FIRST_PAUSE
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                many = await self._publish_what_is_due() >= CROWD
                pause = FIRST_PAUSE
                if many:
                    await asyncio.sleep(CROWDS_EVERY)
            except (BrokerUnavailable, LedgerError) as error:
                logger.warning("calls wait in the ledger for their broker, %.1f s: %s", pause, error)
                self.look_in(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _publish_what_is_due(self) -> int:
        """How many records that were."""
        await self._send_what_had_no_room()
        published, moved = Published((), 0.0), 0
        while published.again_in == 0.0:
            if self._run is None:  # first, so that nothing is leased for a broker that is not there
                await self._reach()
            doubt = self._doubt
            published = await self._ledger.publish(
                queues=self._share.queues,
                but=self._share.but,
                window=self._window,
                limit=BATCH,
                lease=LEASE,
                lost=None if doubt is None else time.monotonic() - doubt,
            )
            self._doubt = None
            await self._send(published.records)
            moved += len(published.records)
        if published.full:
            # Claims ring no bell, so it is looked (test_more_than_the_broker_is_to_hold_goes_through_whole).
            self._next_look = FIRST_LOOK if moved else min(2 * self._next_look, LONGEST_LOOK)
            self.look_in(max(self._pause, self._next_look))
        elif published.again_in is not None:
            self.look_in(published.again_in)
        if self._no_room:
            self.look_in(LONGEST_LOOK)
        return moved

    async def _send_what_had_no_room(self) -> None:
        """A queue full of copies is empty again long before the leases end
        (test_what_is_added_while_the_queue_is_full_of_copies_does_not_wait_for_its_lease).
        """
        if not self._no_room or self._run is None:
            return
        full = await self._threads.run(lambda: self._publisher.full(self._no_room))
        leases = {record.id: record.published_until for record in self._no_room if record.queue not in full}
        self._no_room = [record for record in self._no_room if record.queue in full]
        if leases:
            found = await self._ledger.select(ids=list(leases))
            await self._send([record for record in found if record.published_until == leases[record.id]])

    async def _send(self, records: Sequence[Record]) -> None:
        if not records:
            return
        self._last = time.monotonic()
        try:
            full = await self._threads.run(lambda: self._publisher.send(records))
            self._no_room = [*self._no_room, *full]
        except BaseException:
            self._lose()
            raise

    async def _reach(self) -> None:
        try:
            run = await self._threads.run(self._publisher.reach)
        except BrokerUnavailable:
            self._lose()
            raise
        if self._run not in (None, run):
            self._lose()
        self._run = run

    def _lose(self) -> None:
        """What was published until now may be lost: it is published again when the broker is back.

        The first moment counts: what another process publishes when the broker is back is not lost
        (test_what_the_broker_forgot_is_published_again).
        """
        self._run = None
        self._no_room = ()
        if self._doubt is None:
            self._doubt = time.monotonic()

    async def _ask(self) -> None:
        """A broker that was restarted may have forgotten all, though nobody publishes just now."""
        while True:
            await asyncio.sleep(ASK)
            if self._run is None or time.monotonic() - self._last > LEASE:
                continue
            with suppress(BrokerUnavailable):
                await self._reach()
            if self._doubt is not None:
                self._woken.set()
