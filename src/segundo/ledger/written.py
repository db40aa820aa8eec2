"""What the ledgers have in common: each verb is a change that is posted to the writer's thread."""

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import TypeVar

from segundo.errors import LedgerForked, LedgerUnavailable, UnknownRecord
from segundo.ledger import Beat, Published, Settlement, changes, claims, publishing, settling, workers
from segundo.ledger.answers import Answers
from segundo.ledger.forks import forks
from segundo.ledger.reading import Reader
from segundo.ledger.refused import Forget, Refused
from segundo.ledger.transaction import is_id
from segundo.ledger.watching import Glance, Watch
from segundo.ledger.writer import Writer
from segundo.record import Call, Record, State

T = TypeVar("T")


class WrittenLedger(ABC):
    """See `segundo.ledger.Ledger` for each method. `name` is how messages speak of it."""

    _writer: Writer
    _reader: Reader
    _refused: Refused

    def __init__(self, name: str, record_timeout: float) -> None:
        self.record_timeout = record_timeout
        self.name = name
        self._pid: int | None = None
        self._forks = 0
        self._left: set[str] = set()
        self._listeners: list[Callable[[], None]] = []
        self._cancel_listeners: list[Callable[[], None]] = []
        self._answers: Answers | None = None
        self._watch: Watch | None = None
        self._unsure: set[tuple[str, int]] = set()  # claims whose settlement failed, and may be stored

    # Life

    async def open(self) -> None:
        if self._pid != os.getpid():
            await asyncio.to_thread(self._open_here)

    def _open_here(self) -> None:
        self._open()
        self._pid = os.getpid()
        self._forks = forks.count

    @abstractmethod
    def _open(self) -> None:
        """Open the store, in a thread."""

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

    @abstractmethod
    def _close(self, dead: bool) -> None:
        """Close the store, in a thread."""

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

    @abstractmethod
    async def join(self, owner: str, *, moving: bool = False) -> None:
        """Register this process as `owner`, alive from now on. `moving`: also where the ledger is shut."""

    async def do(self, change: changes.Change[T]) -> T:
        """Make a change that is no verb of the protocol: see `segundo.ledger.moving`."""
        return await self._change(change)

    def flaw(self, columns: Mapping[str, object]) -> str | None:
        """The first column of another store's row that this one cannot hold, and why; None: it holds all."""
        return None

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

    # For threads, which wait for no event loop

    def take(self, owner: str, id: str) -> Record | None:
        self._check_open()
        if not is_id(id):  # PostgreSQL would refuse the question, and a slot would ask for ever
            return None
        box: SimpleQueue[tuple[list[Record], BaseException | None]] = SimpleQueue()

        def done(records: list[Record], error: BaseException | None) -> None:
            box.put((records, error))

        posted = claims.Claim(owner, 1, None, [id], suspect=False), done
        if not self._writer.make_at_once(posted):
            self._writer.post([posted])
        records, error = box.get()
        if error is not None:
            raise error
        return records[0] if records else None

    def put(self, settlement: Settlement, stored: Callable[[bool, BaseException | None], None]) -> None:
        def done(settled: list[bool], error: BaseException | None) -> None:
            if error is not None:
                self._unsure.update(_claims([settlement]))
            stored(error is None and settled[0], error)

        self._check_open()
        self._writer.keep((settling.Settle([settlement]), done))

    async def beat(self, owner: str, *, running: Sequence[str]) -> Beat:
        return await self._change(settling.TakeBeat(owner, frozenset(running)))

    async def rescue(self) -> Sequence[Record]:
        return await self._change(workers.Rescue())

    async def cancel(self, id: str) -> Record:
        if not id.isprintable():  # PostgreSQL would refuse the question
            raise UnknownRecord(f"no record has the id {id!r}")
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

    async def next_due(self, queues: Sequence[str] | None = None, *, but: Sequence[str] = ()) -> float | None:
        return await self._read(lambda: self._reader.next_due(queues, but))

    def watch(self, ids: Sequence[str]) -> AsyncGenerator[Record]:
        self._check_open()
        loop = asyncio.get_running_loop()
        if self._watch is None or self._watch.loop is not loop:
            self._watch = Watch(loop, glance=self._glance, read=self._read_ids)
        return self._watch.changes(ids)

    async def _glance(self, ids: Sequence[str]) -> Sequence[Glance]:
        return await self._read(lambda: self._reader.glance(ids))

    def _read_ids(self, ids: Sequence[str]) -> Awaitable[Sequence[Record]]:
        return self.select(ids=ids)

    async def _read(self, read: Callable[[], T]) -> T:
        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(self._reader.threads, read)

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
        """In the writer's thread: a batch is answered."""
        if self._answers is not None:
            self._answers.wake()
        if self._watch is not None:
            self._watch.committed(self._writer.commits)

    async def _change(self, change: changes.Change[T]) -> T:
        return await self._post(change)

    def _check_open(self) -> None:
        if self._pid is None:
            raise LedgerUnavailable(f"the ledger {self.name} is not open")
        if forks.count != self._forks:
            raise LedgerForked(
                f"the ledger {self.name} was opened before this process was forked: open it in the app's "
                "lifespan, which every process runs for itself"
            )

    def _changed(self) -> None:
        """In a thread of the ledger: something may have changed that nobody in this process knows of."""
        if self._watch is not None:
            self._watch.wake()
        for listener in tuple(self._listeners):
            listener()

    def _asked(self) -> None:
        """In a thread of the ledger: a cancel of what runs may have been asked for."""
        for listener in tuple(self._cancel_listeners):
            listener()


def _claims(settlements: Sequence[Settlement]) -> list[tuple[str, int]]:
    return [(settlement.id, settlement.claim) for settlement in settlements]
