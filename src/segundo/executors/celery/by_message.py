"""Runs the records that messages name, in a Celery worker's process: embedded, but for claiming."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from segundo.errors import LedgerError
from segundo.executors.celery.existing import PREFIX
from segundo.executors.embedded import FIRST_PAUSE, LONGEST_PAUSE, Embedded
from segundo.ledger import Ledger, Settlement
from segundo.record import Record, State
from segundo.runner import Attempt, Runner, Stop

logger = logging.getLogger("segundo")

A_MOMENT = 0.001  # seconds


class Gate:
    """Claims go through, but while a beat is under way: it says what runs here, and must not miss one.

    (test_a_beat_sees_every_record_that_a_slot_takes)
    """

    def __init__(self) -> None:
        self.held: dict[object, str] = {}  # the record of each slot, from before its claim until it is stored
        self._changed = threading.Condition()
        self._shut = False
        self._waiting = 0

    def go_through(self, slot: object, id: str) -> None:
        """In the slot's thread."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._shut)
            self._waiting -= 1
            self.held[slot] = id

    async def __aenter__(self) -> None:
        while self._waiting:  # noqa: ASYNC110  # threads; they go first, or beats in a row would keep them out
            await asyncio.sleep(A_MOMENT)
        with self._changed:
            self._shut = True

    async def __aexit__(self, *_: object) -> None:
        with self._changed:
            self._shut = False
            self._changed.notify_all()


class ByMessage(Embedded):
    """Claims by id, one record for each message; the slots are Celery's. Called on its loop, but for `take`.

    A `def` runs in its slot's own thread, which asks the ledger's writer itself: to go by the loop would wake
    three threads more for each message. `later`: told in how many seconds something that was settled here may
    run: a relay publishes it then.
    """

    def __init__(self, ledger: Ledger, owner: str, runner: Runner, *, later: Callable[[float], None]) -> None:
        super().__init__(ledger, owner, runner, concurrency=1, queues=())
        self._later = later
        self._taken: dict[Attempt, asyncio.Future[Settlement | None]] = {}
        self._alone = asyncio.Lock()
        self._told_of_another = False
        self._claiming = self._gate = Gate()
        self._beside: set[Attempt] = set()  # they run in threads of slots

    # In the thread of a slot

    def take(self, id: str) -> Settlement | None:
        """Claim this record and run it to its end; what became of the attempt, which is stored soon.

        None if it is not to be had: it has run, runs elsewhere, was cancelled, or its message came twice.
        """
        slot = object()
        self._gate.go_through(slot, id)
        attempt: Attempt | None = None
        try:
            record = self._claim_until_answered(id)
            if record is None:
                return self._on_loop(self._take_suspect(id))
            attempt = self._beside_the_loop(record)
            if attempt is None:
                return self._on_loop(self._run_to_its_end(record))
            return self._run_beside(slot, attempt)
        finally:
            if attempt is None:
                self._gate.held.pop(slot, None)

    def _run_beside(self, slot: object, attempt: Attempt) -> Settlement | None:
        settlement = self._runner.run_beside(attempt)
        self._beside.discard(attempt)
        if attempt.stopped is Stop.LOST:
            self._call(self._finish, slot, attempt, settlement, False, None)
            return None
        stored = partial(self._is_stored, slot, attempt, settlement)
        try:
            self._ledger.put(settlement, stored)
        except LedgerError as error:
            stored(False, error)
        return settlement

    def _claim_until_answered(self, id: str) -> Record | None:
        pause = FIRST_PAUSE
        while True:
            try:
                return self._ledger.take(self._owner, id)
            except LedgerError as error:
                logger.warning("claiming %s waits %.1f s: %s", id, pause, error)
                time.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    def _beside_the_loop(self, record: Record) -> Attempt | None:
        """The attempt, under way from now on; None if it needs the loop, or is a task of Celery's own."""
        if record.task.startswith(PREFIX) or not self._runner.needs_no_loop(record):
            return None
        attempt = self._runner.attempt_beside(record, self._loop)
        self._beside.add(attempt)
        self._running[record.id] = attempt
        return attempt

    def _on_loop(self, work: Coroutine[Any, Any, Settlement | None]) -> Settlement | None:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _call(self, step: Callable[..., object], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: a rescue does the rest
            self._loop.call_soon_threadsafe(step, *arguments)

    # In the thread of the ledger

    def _is_stored(
        self, slot: object, attempt: Attempt, settlement: Settlement, mine: bool, error: BaseException | None
    ) -> None:
        if not mine or settlement.state is not State.SUCCEEDED or settlement.children:
            self._call(self._finish, slot, attempt, settlement, mine, error)
            return
        self._running.pop(attempt.record.id, None)  # it has ended: no other attempt can have come
        self._gate.held.pop(slot, None)
        if self._stopping:
            self._call(self._stored.set)

    # On the loop

    def _finish(
        self, slot: object, attempt: Attempt, settlement: Settlement, mine: bool, error: BaseException | None
    ) -> None:
        self._gate.held.pop(slot, None)
        if error is None:
            self._settled(attempt, settlement, mine)
        else:  # it is tried again from here
            self._ended.append((attempt, settlement))
            self._outcomes.set()

    async def _take_suspect(self, id: str) -> Settlement | None:
        """Of those that have taken a process down, one runs at a time."""
        async with self._alone:
            self._reserved.add(id)
            try:
                claimed = await self._ledger.claim(self._owner, ids=[id], limit=1, suspect=True)
                if claimed:
                    return await self._run_to_its_end(claimed[0])
            finally:
                self._reserved.discard(id)
            await self._look_for(id)
            return None

    async def _look_for(self, id: str) -> None:
        """Say once if there is no such record: then who publishes has probably another ledger.

        It would publish for ever what nobody runs (test_a_worker_that_has_another_ledger_says_so).
        """
        if self._told_of_another:
            return
        with suppress(LedgerError):
            if not await self._ledger.select(ids=[id], limit=1):
                self._told_of_another = True
                logger.warning(
                    "a message names the record %s, which is not in this worker's ledger: if the app has "
                    "another one, nothing of it is run here. Give both the same SEGUNDO_LEDGER; a SQLite "
                    "file is of one host, and a relative path of one folder",
                    id,
                )

    async def _run_to_its_end(self, record: Record) -> Settlement | None:
        self._begin(record)
        told: asyncio.Future[Settlement | None] = self._loop.create_future()
        self._taken[self._running[record.id]] = told
        return await told

    def _held(self, seen: Mapping[str, Attempt]) -> Sequence[str]:
        return [*super()._held(seen), *list(self._gate.held.values())]

    def _going_on(self) -> int:
        return super()._going_on() + len(self._beside)

    async def wind_down(self, grace: float) -> None:
        """Tell what runs to end, after `grace`. A `def` that does not look is waited for by Celery."""
        await asyncio.sleep(grace)
        for attempt in list(self._running.values()):  # slots change it meanwhile
            attempt.stop(Stop.SHUTDOWN)

    # What is otherwise done in the embedded executor

    async def _claim(self) -> None:
        await asyncio.Event().wait()

    def _look_in(self, seconds: float) -> None:
        self._later(seconds)

    async def _run(self, attempt: Attempt) -> None:
        await super()._run(attempt)
        if attempt.record.crashes == 0:
            # Its slot is free while its outcome is stored: that is one commit with the claim of the next.
            self._tell(attempt)

    def _settled(self, attempt: Attempt, settlement: Settlement, mine: bool) -> None:
        self._tell(attempt, settlement)
        super()._settled(attempt, settlement, mine)
        if settlement.children:
            self._later(0.0)

    def _let_go(self, attempt: Attempt) -> None:
        super()._let_go(attempt)
        self._tell(attempt)

    def _tell(self, attempt: Attempt, settlement: Settlement | None = None) -> None:
        told = self._taken.pop(attempt, None)
        if told is not None:
            of_it = (settlement for ended, settlement in self._ended[-1:] if ended is attempt)
            told.set_result(settlement or next(of_it, None))
