"""What works for an app in a test: calls run inline, or beside the requests on a real ledger."""

import asyncio
import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from starlette.background import BackgroundTask

from segundo.context import Home
from segundo.errors import ConfigurationError, LedgerError, TaskFailed
from segundo.ledger import Settlement
from segundo.ledger.sqlite import MEMORY
from segundo.names import Names
from segundo.record import Record, State
from segundo.runner import Runner
from segundo.runtime import InlineRuntime, Runtime
from segundo.settings import Settings
from segundo.testing.seen import FailedCall, SeenCall
from segundo.testing.trial import Present
from segundo.testing.watched import Failing, WatchedLedger, WatchedRunner

logger = logging.getLogger("segundo")

PATIENCE = 30.0  # seconds that a drain waits for the executor
LOOK = 0.005


class TestedRuntime(Runtime, ABC):
    """A runtime that the test looks at, and that ends with it if no lifespan ends it."""

    ledger: WatchedLedger
    runner = WatchedRunner

    def __init__(
        self,
        present: Present,
        settings: Settings,
        names: Names,
        home: Home,
        carry: Mapping[str, ContextVar[Any]],
    ) -> None:
        self._present = present
        self._names = names
        self._failing = Failing()
        self._closed = False
        super().__init__(settings, names, home, carry)
        self._outcome = self.outcome
        self.outcome = self._outcome_told

    async def _outcome_told(self, id: str) -> Any:
        """Who awaits a result is told of its failure, and the test need not be."""
        try:
            return await self._outcome(id)
        except TaskFailed as error:
            self._present.told(error.id)
            raise

    def _make_ledger(self, settings: Settings) -> WatchedLedger:
        ledger = WatchedLedger(
            MEMORY if self.inline else settings.ledger,
            durability="normal" if self.inline else settings.durability,
            record_timeout=settings.record_timeout,
            clock=self._present.now,
        )
        ledger.present, ledger.names, ledger.failing = self._present, self._names, self._failing
        return ledger

    def _make_runner(self, names: Names, home: Home, carry: Mapping[str, ContextVar[Any]]) -> Runner:
        made = super()._make_runner(names, home, carry)
        assert isinstance(made, WatchedRunner)
        made.failing = self._failing
        return made

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    @property
    def closed(self) -> bool:
        return self._closed

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await super().close()

    def later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return super().later(self._untold(work))

    async def _untold(self, work: Coroutine[Any, Any, None]) -> None:
        """Nobody sees what is raised here: the test is told at its end."""
        try:
            await work
        except Exception as error:
            if not self._present.not_told(error):
                raise

    def in_process_begins(self, task: BackgroundTask) -> None:
        call = SeenCall.in_process(getattr(task, "func", task), *_arguments(task))
        self._present.trial.calls.append(call)

    def in_process_failed(self, task: BackgroundTask, error: Exception) -> None:
        super().in_process_failed(task, error)
        name = SeenCall.in_process(getattr(task, "func", task), *_arguments(task)).task
        self._present.trial.failed(FailedCall(None, name, type(error).__name__, error))

    def in_process_over(self) -> None:
        self._present.raise_unseen()

    @abstractmethod
    async def drain_for_test(self) -> None:
        """Run all that is due until nothing is, and prune."""


class InlineTested(TestedRuntime, InlineRuntime):
    """The test mode under pytest: inline, on a ledger of the test's own."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._unstored: list[tuple[Record, Settlement]] = []

    def serves(self, *, testing: bool) -> bool:
        return not self._closed

    async def release(self, records: Sequence[Record]) -> None:
        await self.ledger.release(self.owner, [record.id for record in records])
        await self.begin(records)
        self._present.raise_unseen()

    async def begin(self, records: Sequence[Record]) -> None:
        if not self._present.trial.holding:
            await self.drain()

    async def drain_for_test(self) -> None:
        await self.drain()
        await self._prune()

    async def drain(self) -> None:
        try:
            await self._store()
            while claimed := await self.ledger.claim(self.owner, limit=1):
                await self._attempt(claimed[0])
        except LedgerError as error:
            logger.warning("what is due waits for the next request or drain: %s", error)

    async def _attempt(self, record: Record) -> None:
        if self._strikes("crash after claim", record):
            return await self._crash()
        settlement = await self._run(record)
        if self._strikes("crash before settle", record):
            return await self._crash()
        self._unstored.append((record, settlement))
        return await self._store()

    def _strikes(self, point: str, record: Record) -> bool:
        trial = self._present.trial
        return bool(trial.faults) and trial.strikes(point, self._names.resolve(record.task).function)

    async def _store(self) -> None:
        while self._unstored:
            ended = self._unstored.pop(0)  # so that a drain beside this one does not store it too
            try:
                await self._settle(*ended)
            except LedgerError:
                self._unstored.insert(0, ended)
                raise

    async def _crash(self) -> None:
        """The kernel lets go of a dead process's lock; another process, which we go on as, takes over."""
        self._failing.calls.clear()
        await self.ledger.close(dead=True)
        self.owner = secrets.token_hex(8)
        await self.open()


class RealTested(TestedRuntime):
    """A real file, and the executor of a server."""

    def serves(self, *, testing: bool) -> bool:
        return not self._closed and asyncio.get_running_loop() is self._loop

    def start_without_lifespan(self) -> None:
        raise ConfigurationError(
            "real_ledger needs the app's lifespan, which starts and stops what runs its tasks: "
            "`with TestClient(app) as client`, or asgi-lifespan's LifespanManager"
        )

    async def drain_for_test(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not await self._is_idle():  # noqa: ASYNC110  (other threads and processes change it)
                    await asyncio.sleep(LOOK)
        except TimeoutError:
            running = [str(record.task) for record in await self.ledger.select(state=State.RUNNING)]
            raise TimeoutError(
                f"drain() waited {PATIENCE:g} s; still running: {running or 'nothing'}"
            ) from None
        await self._prune()

    async def _is_idle(self) -> bool:
        """Nothing is held by a request, due or running; and nothing has changed while we looked."""
        commits = self.ledger.commits
        if self._late or any(record.owner for record in await self.ledger.select(state=State.WAITING)):
            return False
        due = await self.ledger.next_due()
        if due == 0 or await self.ledger.select(state=State.RUNNING, limit=1):
            return False
        return commits == self.ledger.commits


def _arguments(task: BackgroundTask) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return getattr(task, "args", ()), getattr(task, "kwargs", {})
