"""The one thread that writes: all that waits is committed together (group commit).

A batch that fails is undone and its changes are applied again, each alone, so that a bad one fails alone and
an unknown outcome becomes known. How a transaction is made, and what is worth another try as it is, each
store says for itself. Nothing here is ever called on an event loop.
"""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from segundo.errors import LedgerUnavailable
from segundo.ledger.changes import Change
from segundo.ledger.posting import Box, Kept, Posted, answer, give, refuse, take
from segundo.ledger.refused import Refused

logger = logging.getLogger("segundo.ledger")


class Writer(threading.Thread, ABC):
    """Applies changes in batches until it is told to stop; what was posted before that is still applied.

    Who posts a change always gets an answer, whatever happens in here. `answered`: called when the answers of
    a batch are given.
    """

    # What fails because of the store, and not because of a change: who asked is told LedgerUnavailable.
    of_the_store: ClassVar[tuple[type[Exception], ...]]

    def __init__(self, *, refused: Refused, answered: Callable[[], None]) -> None:
        super().__init__(name="segundo-ledger", daemon=True)
        self.commits = 0
        self._refused = refused
        self._answered = answered
        self._posted: Box = Box()
        self._kept = Kept()
        self._working = threading.Lock()  # held by whoever uses the store
        self._batch: list[Posted] = []  # what is being applied
        self._stopping = False
        self._over = False

    def post(self, posted: list[Posted]) -> None:
        """Apply these with the next batch and call each one's `done` in this thread, and then `answered`."""
        self._posted.put(posted)
        if self._over:  # it ended a moment ago, so nobody else will look
            self._refuse_posted()
            self._answered()

    def keep(self, posted: Posted) -> None:
        """Apply this with the next change that is posted, or a few milliseconds later."""
        if self._kept.add(posted) or self._over:
            self.post([])

    def make_at_once(self, posted: Posted) -> bool:
        """In the thread of who waits: make this change here, if that saves the way by this one.

        Whether it was made, and `done` called; if not, it is as if nobody had asked.
        """
        return False

    def stop(self) -> None:
        """Apply what was posted, and end; returns at once."""
        self._posted.put(None)

    # What a store does in its own way

    @abstractmethod
    def _commit(self, changes: Sequence[Change[Any]]) -> list[Any]:
        """One transaction: first what is to be forgotten, then these; their results. If it raises, nothing is
        left open.
        """

    def _exchange(self, batch: Sequence[Posted]) -> Mapping[Change[Any], Any]:
        """Make those that the store can make in fewer steps, if there are only such; their results, and none
        of the others. Fails as `_commit` does.
        """
        return {}

    @abstractmethod
    def _until_needed(self) -> float | None:
        """Seconds to wait for changes before the next look at the store; 0 or None: not at all."""

    @property
    def _needed(self) -> bool:
        """Whether to commit though nothing was posted."""
        return bool(self._refused)

    @abstractmethod
    def _try_again(self, error: Exception) -> bool:
        """Whether the batch, or what is left of it, may succeed as it is; waits first for as long as that
        needs, and refuses what cannot wait.
        """

    def _commit_alone(self, change: Change[Any]) -> Any:
        """One change of a batch that failed."""
        return self._commit([change])[0]

    @abstractmethod
    def _look(self) -> None:
        """See what the store says by itself, after each batch and each pause."""

    @abstractmethod
    def _rest(self) -> None:
        """Between two batches: say that the answers are given."""

    @abstractmethod
    def _end(self) -> None:
        """All is answered: let go of the store."""

    # The thread

    def run(self) -> None:
        try:
            while not self._stopping:
                self._work()
            self._forget_at_last()
        except BaseException:
            logger.critical("the ledger's writer has ended, and requests are refused", exc_info=True)
            raise
        finally:
            self._over = True
            refuse(self._batch, LedgerUnavailable("the ledger's writer has ended"))
            self._refuse_posted()
            self._answered()
            with self._working:
                self._end()

    def _work(self) -> None:
        self._batch = self._take(self._until_needed())
        try:
            if self._batch or self._needed:
                with self._working:
                    self._write()
            self._look()
        except Exception as error:  # a bug, here or in a listener: it must not leave anybody waiting for ever
            logger.exception("the ledger's writer failed, and goes on")
            refuse(self._batch, self._reason(error))
        self._rest()

    def _take(self, pause: float | None) -> list[Posted]:
        """What waits now; if nothing does, wait for it up to `pause` seconds."""
        look = self._kept.until_look()
        batch, stop = take(self._posted, min(pause, look) if pause and look is not None else pause)
        self._stopping = self._stopping or stop
        if batch or self._stopping or self._over or self._kept.is_due():
            batch += self._kept.take()
        return batch

    def _refuse_posted(self) -> None:
        while waiting := self._take(None):
            refuse(waiting, LedgerUnavailable("the ledger is closed"))

    def _reason(self, error: Exception) -> Exception:
        """What is told to who asked for a change that failed."""
        if isinstance(error, self.of_the_store):
            return LedgerUnavailable(f"the ledger could not write: {error}")
        return error

    # Batches

    def _write(self) -> None:
        while True:
            self._batch = [posted for posted in self._batch if not posted[0].unwanted]
            if not (self._batch or self._needed):
                return
            try:
                results = self._exchange(self._batch) or self._commit_all()
            except Exception as error:  # whose it is, each change shows when it is alone
                # Only its text is kept: its frames hold statements, and while one of those lives, closing a
                # connection of SQLite's does not give back its locks.
                why = str(error)
                if not self._try_again(error):
                    break
                if not self._batch:
                    return
            else:
                self._batch = give(results, self._batch)
                if not self._batch:
                    return
        self._write_each(why)

    def _commit_all(self) -> Mapping[Change[Any], Any]:
        changes = [change for change, _ in self._batch]
        return dict(zip(changes, self._commit(changes), strict=True))

    def _write_each(self, why: str) -> None:
        if len(self._batch) > 1:
            logger.warning(
                "a batch of %d changes failed and is applied one by one: %s", len(self._batch), why
            )
        for change, done in self._batch:
            change.again = True
            try:
                answer(done, self._commit_alone(change))
            except Exception as error:  # it goes to who asked, whatever it is
                done(None, self._reason(error))

    def _forget_at_last(self) -> None:
        if self._refused:
            try:
                self._commit([])
            except Exception as error:  # nobody is left to be told, so the log is
                logger.error(
                    "%d calls of refused requests may still be in the ledger, and would run when another "
                    "process takes over: %s",
                    len(self._refused),
                    error,
                )
