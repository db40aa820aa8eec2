"""Runs records in this process: `async def` on its event loop, `def` in Segundo's own threads."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import Context

from segundo.errors import LedgerError
from segundo.ledger import Ledger, Settlement
from segundo.record import Record, State
from segundo.runner import Attempt, Runner, Stop, log_failure

logger = logging.getLogger("segundo")

Ended = tuple[Attempt, Settlement]

LAST_MOMENT = 1.0  # seconds in which a `def` that looks at `current().cancelled` may still end at a stop
BEAT = 10.0  # seconds between comparisons of what runs here with what the ledger thinks
SOON = 0.05  # seconds until a claim looks again for what was due and could not be had
LONGEST_PLAN = 86400.0  # seconds ahead that a look is planned; a timer of uvloop takes no endless time
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between tries while the ledger cannot be written


class Embedded:
    """Claims as many records as it has free slots, runs and settles them. Called on its loop only."""

    def __init__(
        self,
        ledger: Ledger,
        owner: str,
        runner: Runner,
        *,
        concurrency: int,
        queues: Sequence[str] | None = None,
        but: Sequence[str] = (),
    ) -> None:
        self._ledger = ledger
        self._owner = owner
        self._runner = runner
        self._concurrency = concurrency
        self._queues = queues
        self._but = but  # what others run, if it is all queues
        self._running: dict[str, Attempt] = {}  # claimed, until the settlement is stored
        self._ended: list[Ended] = []
        self._busy = 0  # slots taken by what runs
        self._reserved: set[str] = set()  # being claimed as they are released, each with a slot set aside
        self._claims = True  # until a stop begins
        self._stopping = False
        self._more = False  # the last claim was as large as it could be: there may be more
        self._unseen = True  # records may have come by another way than `wake`: look when the next is due
        self._woken = asyncio.Event()
        self._asked = asyncio.Event()
        self._outcomes = asyncio.Event()
        self._stored = asyncio.Event()
        self._claiming: AbstractAsyncContextManager[object] = asyncio.Lock()
        self._claimed: asyncio.Task[Sequence[Record]] | None = None
        self._timer: asyncio.Handle | None = None  # of the next planned look, at `_planned`
        self._planned = 0.0
        self._work: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        if self._work or self._concurrency == 0:
            return
        self._loop = asyncio.get_running_loop()
        self._work = [
            asyncio.create_task(for_ever(work), name=f"segundo-{work.__name__}")
            for work in (self._claim, self._settle, self._beat)
        ]
        self._ledger.listen(self._changed_unseen)
        self._ledger.listen(self._cancel_asked, cancels=True)
        self._woken.set()

    def reserve(self, records: Sequence[Record]) -> Sequence[Record]:
        """The first of these that have free slots: they may be claimed as they are released.

        None while others wait for a slot here, for those come first. `begin` takes the slots, or gives them
        back.
        """
        if not self._work or self._more or self._stopping:
            return ()
        ready = itertools.takewhile(self._may_run_now, records)
        reserved = list(itertools.islice(ready, max(self._free(), 0)))
        self._reserved.update(record.id for record in reserved)
        return reserved

    def begin(self, records: Sequence[Record], reserved: Sequence[Record]) -> None:
        """Run these, which are claimed now; slots were set aside for `reserved`."""
        self._reserved.difference_update(record.id for record in reserved)
        for record in records:
            self._begin(record)
        if len(records) < len(reserved):
            self._slot_is_free()

    def _may_run_now(self, record: Record) -> bool:
        return record.run_at <= record.created_at and self._runs(record.queue)

    def _runs(self, queue: str) -> bool:
        return queue not in self._but if self._queues is None else queue in self._queues

    def _free(self) -> int:
        return self._concurrency - self._busy - len(self._reserved)

    def _slot_is_free(self) -> None:
        if self._stopping:
            self._stored.set()
        if self._more:
            self._woken.set()

    def wake(self, records: Sequence[Record]) -> None:
        if not self._work:
            return
        now = [record for record in records if record.run_at <= record.created_at]
        if now:
            self._woken.set()
        for record in records:
            if record.run_at > record.created_at:
                self._look_in(record.run_at - record.created_at)

    def claim_no_more(self) -> None:
        """A stop begins: what ends now makes room for no other; what is released now may still run."""
        self._claims = False

    async def stop(self, *, grace: float) -> None:
        self.claim_no_more()
        if not self._work:
            return
        self._stopping = True
        claim, settle, beat = self._work
        self._ledger.unlisten(self._changed_unseen)
        self._ledger.unlisten(self._cancel_asked)
        for work in (claim, beat):
            work.cancel()
        await asyncio.gather(claim, beat, return_exceptions=True)
        if self._claimed is not None:  # what it brings is ours, and would else wait for a rescue
            await asyncio.wait([self._claimed], timeout=grace)
        await self._drain(grace)
        settle.cancel()
        await asyncio.gather(settle, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        self._work = []

    # Claiming

    async def _claim(self) -> None:
        pause = FIRST_PAUSE
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                await self._claim_what_is_due()
                pause = FIRST_PAUSE
            except LedgerError as error:
                logger.warning("claiming waits %.1f s: %s", pause, error)
                self._look_in(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _claim_what_is_due(self) -> None:
        self._more = True
        while self._claims and self._more and (free := self._free()) > 0:
            async with self._claiming:
                # Shielded, so that a stop does not lose sight of a claim that is under way.
                self._claimed = asyncio.create_task(self._claim_and_begin(free))
                records = await asyncio.shield(self._claimed)
            self._more = len(records) == free
        if self._unseen and not self._more:
            self._unseen = False
            due = await self._ledger.next_due(self._queues, but=self._but)
            if due is not None:
                # What is due and was not claimed waits for one that runs alone, or fell due this moment: no
                # rush.
                self._look_in(due or SOON)

    async def _claim_and_begin(self, free: int) -> Sequence[Record]:
        suspect = not any(attempt.record.crashes for attempt in self._running.values())
        records = await self._ledger.claim(
            self._owner, limit=free, queues=self._queues, but=self._but, suspect=suspect
        )
        for record in records:
            self._begin(record)
        return records

    def _look_in(self, seconds: float) -> None:
        """Claim in `seconds`, unless a look is already planned for before."""
        moment = self._loop.time() + min(seconds, LONGEST_PLAN)
        if self._timer is not None:
            if self._planned <= moment:
                return
            self._timer.cancel()
        # Kept beside the handle: uvloop's has no `when()` if the moment is now.
        self._planned, self._timer = moment, self._loop.call_at(moment, self._look_as_planned)

    def _look_as_planned(self) -> None:
        self._timer = None
        self._look()

    def _look(self) -> None:
        self._unseen = True
        self._woken.set()

    def _changed_unseen(self) -> None:
        """In a thread of the ledger: another process, or a chain, may have made something claimable."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._look)

    # Running

    def _begin(self, record: Record) -> None:
        attempt = self._running[record.id] = self._runner.attempt(record)
        self._busy += 1
        attempt.running = self._loop.create_task(self._run(attempt), context=Context())

    async def _run(self, attempt: Attempt) -> None:
        settlement = await self._runner.run(attempt)
        self._busy -= 1
        if attempt.stopped is Stop.LOST:
            self._let_go(attempt)
        else:
            self._ended.append((attempt, settlement))
            if len(self._ended) == 1:
                self._outcomes.set()
        if self._more:
            self._woken.set()

    def _let_go(self, attempt: Attempt) -> None:
        """Only of this attempt: what went back may be claimed and run here again before we hear of it."""
        if self._running.get(attempt.record.id) is attempt:
            del self._running[attempt.record.id]
        if self._stopping:
            self._stored.set()
        if attempt.record.crashes:
            self._woken.set()  # only now may the next that crashed a process be claimed: it runs alone

    # Settling

    async def _settle(self) -> None:
        while True:
            await self._outcomes.wait()
            self._outcomes.clear()
            ended, self._ended = self._ended, []
            try:
                await self._store(ended)
            except BaseException:
                self._ended[:0] = ended
                self._outcomes.set()
                raise

    async def _store(self, ended: Sequence[Ended]) -> None:
        """Store outcomes until the ledger has them; meanwhile the claims are ours, nobody else runs them."""
        pause = FIRST_PAUSE
        while ended:
            try:
                settled = await self._ledger.settle([settlement for _, settlement in ended])
            except LedgerError as error:
                logger.error("%d outcomes wait %.1f s to be stored: %s", len(ended), pause, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                for (attempt, settlement), mine in zip(ended, settled, strict=True):
                    self._settled(attempt, settlement, mine)
                return

    def _settled(self, attempt: Attempt, settlement: Settlement, mine: bool) -> None:
        self._let_go(attempt)
        if not mine:
            logger.warning(
                "record %s: claim %d was no longer held, its outcome is dropped",
                settlement.id,
                settlement.claim,
            )
        elif settlement.state is State.QUEUED:
            self._look_in(settlement.delay)
        elif settlement.state is State.FAILED:
            log_failure(attempt.record, settlement)

    # Beating and stopping

    async def _beat(self) -> None:
        pause = BEAT
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._asked.wait()
            self._asked.clear()
            try:
                async with self._claiming:  # what a claim is just bringing is no stray
                    seen = dict(self._running)
                    beat = await self._ledger.beat(self._owner, running=self._held(seen))
                pause = BEAT
            except LedgerError as error:
                logger.warning("beat failed: %s", error)
                pause = min(LONGEST_PAUSE, BEAT)  # it may have been about to say what is to be cancelled
                continue
            for id in beat.lost:
                # Of an attempt that has begun since, by a release or after a retry, it says nothing
                # (test_a_beat_while_a_call_is_being_released_does_not_make_it_run_twice).
                if (attempt := seen.get(id)) is not None and self._running.get(id) is attempt:
                    attempt.stop(Stop.LOST)
            for id in beat.cancel:
                # Also of one that has begun since, by a release: what is to be cancelled has no later attempt
                # (test_a_cancel_reaches_what_is_just_being_released).
                if (attempt := self._running.get(id)) is not None:
                    attempt.stop(Stop.CANCELLED)

    def _cancel_asked(self) -> None:
        """In a thread of the ledger: somebody asked to cancel something that runs, perhaps here."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._asked.set)

    async def _drain(self, grace: float) -> None:
        """Wait for what runs; after `grace` cancel what can be cancelled, and leave threads to the rescue."""
        await self._until_stored(grace, lambda: not self._reserved)
        if under_way := self._under_way():
            await asyncio.wait(under_way, timeout=grace)
        attempts = list(self._running.values())
        stopped = [task for attempt in attempts if (task := attempt.task) is not None]
        for attempt in attempts:
            attempt.stop(Stop.SHUTDOWN)
        if stopped:
            await asyncio.wait(stopped, timeout=grace)
        if under_way := self._under_way():
            await asyncio.wait(under_way, timeout=LAST_MOMENT)
        await self._until_stored(grace, lambda: len(self._running) == self._going_on())

    def _held(self, seen: Mapping[str, Attempt]) -> Sequence[str]:
        """What the ledger may rightly think runs here: `seen`, and what is just being claimed."""
        return [*seen, *self._reserved]

    def _going_on(self) -> int:
        """How many attempts have no outcome yet."""
        return self._busy

    def _under_way(self) -> list[asyncio.Task[None]]:
        return [attempt.running for attempt in list(self._running.values()) if attempt.running is not None]

    async def _until_stored(self, patience: float, enough: Callable[[], bool]) -> None:
        """Every outcome there is goes to the ledger before we leave; what still runs in threads has none."""
        try:
            async with asyncio.timeout(patience):
                while not enough():
                    self._stored.clear()
                    await self._stored.wait()
        except TimeoutError:
            logger.error("the ledger could not be written before the stop: another process finishes it")


async def for_ever(work: Callable[[], Awaitable[None]]) -> None:
    """A loop that ends by a mistake of ours is begun again, and says so: else nothing would run any more."""
    while True:
        try:
            await work()
        except Exception:  # what is foreseen was caught by `work`; of a mistake nobody knows the type
            logger.exception("Segundo's executor failed, and goes on")
            await asyncio.sleep(FIRST_PAUSE)
