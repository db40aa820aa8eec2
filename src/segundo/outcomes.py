"""What became of a record: its result as the task returned it, or the failure raised where it is awaited."""

from contextlib import aclosing
from typing import Any

from segundo.errors import TaskCancelled, TaskFailed, UnknownRecord
from segundo.failure import Failure
from segundo.ledger import Ledger
from segundo.names import Names
from segundo.record import Record, State


class Outcomes:
    """Waits for the ends of records, in whichever process they run."""

    def __init__(self, ledger: Ledger, names: Names) -> None:
        self._ledger = ledger
        self._names = names

    async def of(self, id: str) -> Any:
        """The result of a record, once it has ended; that of the live one, if it is a duplicate.

        Raises TaskFailed, TaskCancelled, UnknownRecord, UnknownTask, PayloadError and LedgerUnavailable.
        """
        record = await self._ended(id)
        if record.same_as is not None:
            return await self.of(record.same_as)
        if record.state is not State.SUCCEEDED:
            raise failure_of(record)
        if record.result is None:
            return None
        return self._names.resolve(record.task).result.decode(record.result)

    async def _ended(self, id: str) -> Record:
        async with aclosing(self._ledger.watch([id])) as changes:
            async for record in changes:
                if record.state.terminal:
                    return record
        raise UnknownRecord(f"no record has the id {id!r}; it may have been deleted after its retention")


def failure_of(record: Record) -> TaskFailed:
    kind = TaskCancelled if record.state is State.CANCELLED else TaskFailed
    error = None if record.error is None else Failure.read(record.error)
    return kind(record.id, record.task, record.reason, error)
