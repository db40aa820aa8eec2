"""The ledger in a SQLite file: one host, any number of processes."""

import asyncio
import logging
import os
import shutil
import sqlite3
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from segundo.errors import LedgerForked, LedgerUnavailable
from segundo.ledger import Beat, Settlement
from segundo.ledger.sqlite import changes, file, workers
from segundo.ledger.sqlite.reader import Reader
from segundo.ledger.sqlite.turns import Turns, lock_file
from segundo.ledger.sqlite.writer import Writer
from segundo.record import Call, Record, State

logger = logging.getLogger("segundo.ledger")

T = TypeVar("T")

MEMORY = "memory://"


class SQLiteLedger:
    """Records in one file, written by one thread with group commit. See `segundo.ledger.Ledger` for each
    method.

    `path`: the file, or "memory://" for a temporary one that goes when the ledger closes. `durability`:
    "full" (an fsync before each commit returns) or "normal" (a power loss may take the last commits).
    `record_timeout`: seconds that a request waits for its records. `clock`: unix seconds; every time in the
    ledger comes from it. `connect`: makes the connections that write, here a fault can be put in.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        durability: file.Durability = "full",
        record_timeout: float = 5.0,
        clock: Callable[[], float] = time.time,
        connect: Callable[[Path, file.Durability], sqlite3.Connection] = file.connect,
    ) -> None:
        self.path = _temporary_path(self) if str(path) == MEMORY else Path(path).absolute()
        self.record_timeout = record_timeout
        self._durability: file.Durability = durability
        self._clock = clock
        self._connect = connect
        self._pid: int | None = None
        self._numbers: dict[str, int] = {}
        self._listeners: list[Callable[[], None]] = []

    # Life

    async def open(self) -> None:
        if self._pid != os.getpid():
            await asyncio.to_thread(self._open)

    def _open(self) -> None:
        file.prepare(self.path)
        self._turns = Turns.at(lock_file(self.path))
        try:
            with self._turns.turn():
                connection = self._connect(self.path, self._durability)
                try:
                    file.set_up(connection, self.path)
                finally:
                    connection.close()
            self._identity = _identity(self.path)
            self._reader = Reader(self.path)
            self._writer = Writer(
                lambda: self._connect(self.path, self._durability),
                self._turns,
                in_place=self._in_place,
                clock=self._clock,
                changed=self._changed,
            )
        except BaseException:
            self._turns.close()
            raise
        self._writer.start()
        self._pid = os.getpid()

    async def close(self) -> None:
        if self._pid == os.getpid():
            self._pid = None
            await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.stop()
        self._writer.join(self.record_timeout)
        self._reader.close()
        for number in self._numbers.values():
            self._turns.die(number)
        self._numbers.clear()
        if not self._writer.is_alive():  # else it waits for the turn, and still needs the lock file
            self._turns.close()

    @property
    def commits(self) -> int:
        """How many transactions this process has committed since it opened the ledger."""
        return self._writer.commits

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener`, in a thread of the ledger, when records may have become claimable unseen."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        self._listeners.remove(listener)

    # Changes

    async def join(self, owner: str) -> None:
        self._numbers[owner] = await self._change(workers.Join(owner, self._durability))

    async def leave(self, owner: str) -> None:
        if await self._change(workers.Leave(owner)):
            self._turns.die(self._numbers.pop(owner))

    async def record(self, calls: Sequence[Call], *, owner: str) -> Sequence[Record]:
        change = changes.RecordCalls(calls, owner)
        recorded = self._post(change)
        timer = recorded.get_loop().call_later(self.record_timeout, _give_up, recorded, self.record_timeout)
        try:
            return await recorded
        except BaseException:
            # Too late, cancelled or failed: whatever became of it, these records must not run. If the writer
            # has not begun it skips the change; if it has, the rows go before anybody can release them
            # (transition k).
            change.unwanted = True
            self._post(changes.Forget([call.id for call in calls], owner)).add_done_callback(_look_at_outcome)
            raise
        finally:
            timer.cancel()

    def release(self, owner: str, ids: Sequence[str]) -> "asyncio.Future[None]":
        return self._post(changes.Release(ids, owner))

    async def claim(
        self,
        owner: str,
        *,
        limit: int,
        queues: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
        suspect: bool = True,
    ) -> Sequence[Record]:
        return await self._change(changes.Claim(owner, limit, queues, ids, suspect))

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        return await self._change(changes.Settle(settlements))

    async def beat(self, owner: str, *, running: Sequence[str]) -> Beat:
        return await self._change(changes.TakeBeat(owner, running))

    async def rescue(self) -> Sequence[Record]:
        return await self._change(workers.Rescue())

    async def cancel(self, id: str) -> Record:
        return await self._change(changes.Cancel(id))

    async def progress(self, id: str, claim: int, progress: str) -> bool:
        return await self._change(changes.Progress(id, claim, progress))

    async def prune(self, *, older_than: float | None = None, limit: int = 1000) -> int:
        return await self._change(changes.Prune(older_than, limit))

    # Reads

    async def select(
        self,
        *,
        ids: Sequence[str] | None = None,
        state: State | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> Sequence[Record]:
        return await self._read(lambda: self._reader.select(ids=ids, state=state, limit=limit, before=before))

    async def next_due(self, queues: Sequence[str] | None = None) -> float | None:
        run_at = await self._read(lambda: self._reader.next_due(queues))
        return None if run_at is None else max(0.0, run_at - self._clock())

    # Between the loop and the threads

    def _post(self, change: changes.Change[T]) -> "asyncio.Future[T]":
        """Hand a change to the writer; the future is done on the caller's loop."""
        self._check_open()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._writer.post(change, lambda result, error: _deliver(loop, future, result, error))
        return future

    async def _change(self, change: changes.Change[T]) -> T:
        return await self._post(change)

    async def _read(self, read: Callable[[], T]) -> T:
        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(self._reader.thread, read)

    def _check_open(self) -> None:
        if self._pid is None:
            raise LedgerUnavailable(f"the ledger {self.path} is not open")
        if self._pid != os.getpid():
            raise LedgerForked(
                f"the ledger {self.path} was opened before this process was forked: open it in the app's "
                "lifespan, which every process runs for itself"
            )

    def _in_place(self) -> bool:
        return _identity(self.path) == self._identity and self._turns.same_file()

    def _changed(self) -> None:
        for listener in tuple(self._listeners):
            listener()


def _temporary_path(ledger: SQLiteLedger) -> Path:
    folder = tempfile.mkdtemp(prefix="segundo-")
    weakref.finalize(ledger, shutil.rmtree, folder, ignore_errors=True)
    return Path(folder, "segundo.db")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _give_up(future: "asyncio.Future[Any]", seconds: float) -> None:
    if not future.done():
        future.set_exception(
            LedgerUnavailable(f"the ledger did not record within {seconds:g} s; nothing was changed")
        )


def _deliver(
    loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Any]", result: Any, error: BaseException | None
) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(_set, future, result, error)


def _set(future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _look_at_outcome(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled() and future.exception() is not None:
        logger.error("records of a refused request may still be in the ledger: %s", future.exception())
