"""Runs the records that messages name, in a Celery worker's process: embedded, but for claiming."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from segundo.errors import LedgerError
from segundo.executors.embedded import FIRST_PAUSE, LONGEST_PAUSE, Embedded
from segundo.ledger import Ledger, Settlement
from segundo.record import Record
from segundo.runner import Attempt, Runner

logger = logging.getLogger("segundo")


class ByMessage(Embedded):
    """Claims by id, one record for each message; the slots are Celery's. Called on its loop only.

    `later`: told in how many seconds something that was settled here may run: a relay publishes it then.
    """

    def __init__(self, ledger: Ledger, owner: str, runner: Runner, *, later: Callable[[float], None]) -> None:
        super().__init__(ledger, owner, runner, concurrency=1, queues=())
        self._later = later
        self._taken: dict[Attempt, asyncio.Future[Settlement | None]] = {}
        self._alone = asyncio.Lock()
        self._told_of_another = False

    async def take(self, id: str) -> Settlement | None:
        """Claim this record and run it to its end; what became of the attempt, which is stored soon.

        None if it is not to be had: it has run, runs elsewhere, was cancelled, or its message came twice.
        """
        attempt = await self._take(id, suspect=False)
        if attempt is not None:
            return await self._taken[attempt]
        async with self._alone:  # of those that have taken a process down, one runs at a time
            attempt = await self._take(id, suspect=True)
            if attempt is None:
                await self._look_for(id)
            return None if attempt is None else await self._taken[attempt]

    async def _take(self, id: str, *, suspect: bool) -> Attempt | None:
        self._reserved.add(id)  # a beat while it is being claimed must not take it for a stray
        try:
            for record in await self._claim_until_answered(id, suspect):
                self._begin(record)
                attempt = self._running[record.id]
                self._taken[attempt] = self._loop.create_future()
                return attempt
            return None
        finally:
            self._reserved.discard(id)

    async def _claim_until_answered(self, id: str, suspect: bool) -> Sequence[Record]:
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._ledger.claim(self._owner, ids=[id], limit=1, suspect=suspect)
            except LedgerError as error:
                logger.warning("claiming %s waits %.1f s: %s", id, pause, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

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
