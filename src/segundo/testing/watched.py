"""A ledger and a runner that tell the test what they see."""

import asyncio
from collections.abc import Sequence
from typing import Any

from segundo.errors import SegundoError
from segundo.ledger import Settlement
from segundo.ledger.sqlite import SQLiteLedger
from segundo.names import Names
from segundo.record import Call, Record, State
from segundo.runner import Attempt, Runner, WorkerLost
from segundo.task import Task
from segundo.testing.seen import FailedCall, SeenCall
from segundo.testing.trial import Present


class Failing:
    """Attempts that have failed, from their end until that is stored."""

    def __init__(self) -> None:
        self.errors: dict[str, BaseException] = {}  # what the task last raised
        self.calls: dict[str, FailedCall] = {}


class WatchedRunner(Runner):
    """Keeps the exceptions themselves: a settlement has only their description."""

    failing: Failing

    async def run(self, attempt: Attempt) -> Settlement:
        record = attempt.record
        settlement = await super().run(attempt)
        error = self.failing.errors.pop(record.id, None)
        if settlement.state is State.FAILED:
            reason = settlement.reason or ""
            error = error or SegundoError(f"{record.task} could not be run: {settlement.error}")
            self.failing.calls[record.id] = FailedCall(record.id, record.task, reason, error)
        return settlement

    async def _call(self, task: Task, attempt: Attempt, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return await super()._call(task, attempt, args, kwargs)
        except BaseException as error:
            self.failing.errors[attempt.record.id] = error
            raise


class WatchedLedger(SQLiteLedger):
    """A SQLite file on the test's clock, with the test's faults."""

    present: Present
    names: Names
    failing: Failing

    async def record(self, calls: Sequence[Call], *, owner: str) -> Sequence[Record]:
        self.present.trial.strike("record")
        records = await super().record(calls, owner=owner)
        duplicates = {record.id for record in records if record.same_as}
        self._saw([call for call in calls if call.id not in duplicates])
        return records

    async def claim(self, owner: str, **how: Any) -> Sequence[Record]:
        self.present.trial.strike("claim")
        return await super().claim(owner, **how)

    def start(self, owner: str, records: Sequence[Record], *, limit: int) -> "asyncio.Future[list[Record]]":
        claimable = 0 if self.present.trial.strikes("claim") else limit  # it releases them all the same
        return super().start(owner, records, limit=claimable)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        self.present.trial.strike("settle")
        settled = await super().settle(settlements)
        for settlement, mine in zip(settlements, settled, strict=True):
            failed = self.failing.calls.pop(settlement.id, None)
            if mine and failed is not None:
                self.present.trial.failed(failed)
            if mine and settlement.state is State.SUCCEEDED:
                self._saw(settlement.children)
        return settled

    async def rescue(self) -> Sequence[Record]:
        rescued = await super().rescue()
        for record in rescued:
            if record.state is State.FAILED:
                error = WorkerLost(f"{record.task}: its process died while it ran")
                self.present.trial.failed(FailedCall(record.id, record.task, record.reason or "", error))
        return rescued

    def clock_moved(self) -> None:
        """What was delayed may be due."""
        self._changed()

    def _saw(self, calls: Sequence[Call]) -> None:
        self.present.trial.calls += [SeenCall.recorded(call, self.names) for call in calls]
