"""The ledger in a SQLite file: one host, any number of processes."""

import asyncio
import functools
import logging
import os
import shutil
import sqlite3
import tempfile
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from segundo.errors import LedgerForked, LedgerUnavailable, LedgerUnusable
from segundo.ledger import Beat, Published, Settlement, changes, claims, publishing, settling, workers
from segundo.ledger.answers import Answers
from segundo.ledger.refused import Forget, Refused
from segundo.ledger.sqlite import file
from segundo.ledger.sqlite.reader import Reader
from segundo.ledger.sqlite.turns import Turns, lock_file
from segundo.ledger.sqlite.writer import Writer
from segundo.ledger.watching import Watch
from segundo.record import Call, Record, State

logger = logging.getLogger("segundo.ledger")

T = TypeVar("T")

MEMORY = "memory://"


class Forks:
    """How many forks lie between the program's start and this process: quicker to ask than its id."""

    def __init__(self) -> None:
        self.count = 0
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.count += 1


_forks = Forks()  # per process, as forks are


class SQLiteLedger:
    """Records in one file, written by one thread with group commit. See `segundo.ledger.Ledger` for each
    method.

    `path`: the file, or "memory://" for a temporary one from `open` to `close`. `durability`:
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
        self._in_memory = str(path) == MEMORY
        self._remove: Callable[[], object] | None = None  # its folder
        self.path = Path(path) if self._in_memory else Path(path).absolute()
        self.record_timeout = record_timeout
        self._durability: file.Durability = durability
        self._clock = clock
        self._connect = connect
        self._pid: int | None = None
        self._numbers: dict[str, int] = {}
        self._left: set[str] = set()
        self._listeners: list[Callable[[], None]] = []
        self._cancel_listeners: list[Callable[[], None]] = []
        self._answers: Answers | None = None
        self._watch: Watch | None = None
        self._unsure: set[tuple[str, int]] = set()  # claims whose settlement failed, and may be stored

    # Life

    async def open(self) -> None:
        if self._pid != os.getpid():
            await asyncio.to_thread(self._open)

    def _open(self) -> None:
        if self._in_memory and self._remove is None:
            self.path, self._remove = _temporary_path(self)
        file.prepare(self.path)
        self._turns = self._take_turns()
        try:
            with self._turns.turn():
                self._open_in_turn()
        except sqlite3.Error as error:
            self._turns.close()
            raise LedgerUnusable(f"ledger {self.path} cannot be opened: {error}") from error
        except BaseException:
            self._turns.close()
            raise
        self._writer.start()
        self._pid = os.getpid()
        self._forks = _forks.count

    def _take_turns(self) -> Turns:
        path = lock_file(self.path)
        try:
            return Turns.at(path)
        except OSError as error:
            raise LedgerUnusable(f"ledger {self.path}: {path} cannot be opened: {error.strerror}") from error

    def _open_in_turn(self) -> None:
        with closing(self._connect(self.path, self._durability)) as connection:
            file.set_up(connection, self.path)
        self._refused = Refused()
        self._reader = Reader(self.path)
        try:
            self._writer = Writer(
                lambda: self._connect(self.path, self._durability),
                self._turns,
                refused=self._refused,
                in_place=self._in_place,
                clock=self._clock,
                changed=self._changed,
                asked=self._asked,
                answered=self._answered,
            )
            self._files = [f"{self.path}{suffix}" for suffix in ("", "-wal", "-shm")] + [
                str(self._turns.path)
            ]
            self._identity = _identity(self._files)
        except BaseException:
            self._reader.close()
            raise

    async def close(self, *, dead: bool = False) -> None:
        """Finish what was posted, and close; a second call does nothing.

        An owner that has not left, since a thread of it still runs a task, stays alive until this process
        ends: else another would start the task again beside it. `dead` lets go of it all the same.
        """
        if self._pid == os.getpid():
            self._pid = None
            answers, self._answers = self._answers, None
            watch, self._watch = self._watch, None
            if answers is not None:
                answers.close()
            if watch is not None:
                watch.close()
            await asyncio.to_thread(self._close, dead)
            if answers is not None:
                answers.wake()

    def _close(self, dead: bool) -> None:
        self._reader.close()  # before the writer, which merges the WAL into the file if it is the last
        while self._left:
            owner = self._left.pop()
            self._writer.post([(workers.Go(owner), functools.partial(self._gone, owner))])
        self._writer.stop()
        self._writer.join(self.record_timeout)
        if dead:
            for number in self._numbers.values():
                self._turns.die(number)
            self._numbers.clear()
        # A writer that still waits for the turn needs the lock file, and so does an owner that lives on.
        if not self._writer.is_alive() and not self._numbers:
            self._turns.close()
            if self._remove is not None and not dead:
                self._remove()  # here, and not when this object goes, which may be on an event loop
                self._remove = None

    def _gone(self, owner: str, forgotten: bool | None, error: BaseException | None) -> None:
        if forgotten:
            self._turns.die(self._numbers.pop(owner))

    @property
    def commits(self) -> int:
        """How many transactions this process has committed since it opened the ledger."""
        return self._writer.commits

    def listen(self, listener: Callable[[], None], *, cancels: bool = False) -> None:
        """Call `listener`, in a thread of the ledger, when records may have become claimable unseen, or with
        `cancels` when a cancel of what runs may have been asked for."""
        (self._cancel_listeners if cancels else self._listeners).append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        for listeners in (self._listeners, self._cancel_listeners):
            if listener in listeners:
                listeners.remove(listener)

    # Changes

    async def join(self, owner: str) -> None:
        self._numbers[owner] = await self._change(workers.Join(owner, self._durability))

    async def leave(self, owner: str) -> None:
        self._left.add(owner)
        await self._change(workers.Leave(owner))

    async def record(self, calls: Sequence[Call], *, owner: str) -> Sequence[Record]:
        change = changes.RecordCalls(calls, owner)
        recorded = self._post(change)
        self._answers_of(recorded.get_loop()).watch(recorded, change)
        try:
            return await recorded
        except BaseException:
            # Too late, cancelled or failed: these calls must not run. If the writer has not begun, it skips
            # them; else the next transaction deletes them, before anybody can release them (transition k).
            # Who is cancelled may have recorded them before, under the same ids.
            if not change.give_up() or recorded.cancelled():
                self._refused.add([call.id for call in change.calls], change.owner, held=change.held)
            raise

    async def forget(self, owner: str, ids: Sequence[str]) -> None:
        self._refused.add(ids, owner, held=True)
        await self._change(Forget([], owner, held=True))  # a transaction: each deletes the refused first

    def release(self, owner: str, ids: Sequence[str]) -> "asyncio.Future[None]":
        return self._post(changes.Release(ids, owner))

    def start(self, owner: str, records: Sequence[Record], *, limit: int) -> "asyncio.Future[list[Record]]":
        return self._post(claims.Start(records, owner, limit))

    async def claim(
        self,
        owner: str,
        *,
        limit: int,
        queues: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
        suspect: bool = True,
        but: Sequence[str] = (),
    ) -> Sequence[Record]:
        return await self._change(claims.Claim(owner, limit, queues, ids, suspect, but))

    async def publish(
        self,
        *,
        queues: Sequence[str] | None,
        but: Sequence[str] = (),
        window: int,
        limit: int,
        lease: float,
        lost: float | None = None,
    ) -> Published:
        return await self._change(publishing.Publish(queues, but, window, limit, lease, lost))

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        if not self._unsure:
            return await self._settle(settling.Settle(settlements))
        settled = await self._settle(settling.Settle(settlements, self._unsure))
        self._unsure.difference_update(_claims(settlements))
        return settled

    async def _settle(self, change: settling.Settle) -> Sequence[bool]:
        try:
            return await self._change(change)
        except BaseException:
            # It may be stored all the same. When it is tried again, the answer must not be "no longer yours".
            self._unsure.update(_claims(change.settlements))
            raise

    async def beat(self, owner: str, *, running: Sequence[str]) -> Beat:
        return await self._change(settling.TakeBeat(owner, running))

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

    async def waits_for(self, ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        return await self._read(lambda: self._reader.waits_for(ids))

    def watch(self, ids: Sequence[str]) -> AsyncGenerator[Record]:
        self._check_open()
        loop = asyncio.get_running_loop()
        if self._watch is None or self._watch.loop is not loop:
            self._watch = Watch(loop, glance=self._glance, read=lambda ids: self.select(ids=ids))
        return self._watch.changes(ids)

    async def _glance(self, ids: Sequence[str]) -> Sequence[tuple[object, ...]]:
        return await self._read(lambda: self._reader.glance(ids))

    async def next_due(self, queues: Sequence[str] | None = None, *, but: Sequence[str] = ()) -> float | None:
        run_at = await self._read(lambda: self._reader.next_due(queues, but))
        return None if run_at is None else max(0.0, run_at - self._clock())

    # Between the loop and the threads

    def _post(self, change: changes.Change[T]) -> "asyncio.Future[T]":
        """Hand a change to the writer; the future is done on the caller's loop."""
        self._check_open()
        return self._answers_of(asyncio.get_running_loop()).ask(change)

    def _answers_of(self, loop: asyncio.AbstractEventLoop) -> Answers:
        """One loop is the rule; in tests, one follows the other."""
        if self._answers is None or self._answers.loop is not loop:
            if self._answers is not None:
                self._answers.send()
            self._answers = Answers(loop, self.record_timeout, post=self._writer.post)
        return self._answers

    def _answered(self) -> None:
        if self._answers is not None:
            self._answers.wake()
        if self._watch is not None:
            self._watch.committed(self._writer.commits)

    async def _change(self, change: changes.Change[T]) -> T:
        return await self._post(change)

    async def _read(self, read: Callable[[], T]) -> T:
        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(self._reader.thread, read)

    def _check_open(self) -> None:
        if self._pid is None:
            raise LedgerUnavailable(f"the ledger {self.path} is not open")
        if _forks.count != self._forks:
            raise LedgerForked(
                f"the ledger {self.path} was opened before this process was forked: open it in the app's "
                "lifespan, which every process runs for itself"
            )

    def _in_place(self) -> bool:
        return _identity(self._files) == self._identity

    def _changed(self) -> None:
        if self._watch is not None:
            self._watch.wake()
        for listener in tuple(self._listeners):
            listener()

    def _asked(self) -> None:
        for listener in tuple(self._cancel_listeners):
            listener()


def _temporary_path(ledger: SQLiteLedger) -> tuple[Path, Callable[[], object]]:
    """A path in a folder of its own; and what removes that, which what is never closed leaves to its end."""
    folder = tempfile.mkdtemp(prefix="segundo-")
    remove = weakref.finalize(ledger, shutil.rmtree, folder, ignore_errors=True)
    return Path(folder, "segundo.db"), remove


def _identity(files: Sequence[str]) -> list[tuple[int, int]] | None:
    """Which files they are; None if one is not there."""
    try:
        found = [os.stat(file) for file in files]
    except OSError:
        return None
    return [(file.st_dev, file.st_ino) for file in found]


def _claims(settlements: Sequence[Settlement]) -> list[tuple[str, int]]:
    return [(settlement.id, settlement.claim) for settlement in settlements]
