"""The one thread that writes: all that waits is committed together (group commit).

While there is more to do, the turn is kept as long as nobody else waits for it, and the loop is woken for the
answers of a batch as the next one's COMMIT begins: it then has the interpreter to itself for that long.

A batch that fails is undone and its changes are applied again, each alone and on a fresh connection, so that
a bad one fails alone and an unknown outcome becomes known. Nothing here is ever called on an event loop.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from segundo.errors import LedgerUnavailable
from segundo.ledger.changes import Change
from segundo.ledger.posting import Box, Posted, answer, apply, refuse, take
from segundo.ledger.refused import Refused
from segundo.ledger.sqlite import file
from segundo.ledger.sqlite.statements import CANCELS, COUNT_CANCEL
from segundo.ledger.sqlite.transaction import FileTransaction, Inexact
from segundo.ledger.sqlite.turns import Turns
from segundo.ledger.transaction import Transaction

logger = logging.getLogger("segundo.ledger")

SHORTEST_LOOK, LONGEST_LOOK = 0.005, 0.1  # seconds between looks for commits of other processes


class Busy(Exception):
    """A stranger holds the write lock: nothing was changed, try again."""


class Writer(threading.Thread):
    """Applies changes in batches until it is told to stop; what was posted before that is still applied.

    Who posts a change always gets an answer, whatever happens in here.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        turns: Turns,
        *,
        refused: Refused,
        in_place: Callable[[], bool],
        clock: Callable[[], float],
        changed: Callable[[], None],
        asked: Callable[[], None],
        answered: Callable[[], None],
    ) -> None:
        super().__init__(name="segundo-ledger", daemon=True)
        self.commits = 0
        self._connect = connect
        self._turns = turns
        self._refused = refused
        self._in_place = in_place
        self._clock = clock
        self._changed = changed
        self._asked = asked
        self._answered = answered
        self._posted: Box = Box()
        self._batch: list[Posted] = []  # what is being applied
        self._patient = True  # waits while a stranger holds the lock
        self._stopping = False
        self._over = False
        self._in_turn = False
        self._connection: sqlite3.Connection | None = connect()
        self._seen: int | None = _data_version(self._connection)
        self._cancels = _cancels(self._connection)
        self._pause = LONGEST_LOOK
        self._looked = 0.0

    def post(self, posted: list[Posted]) -> None:
        """Apply these with the next batch and call each one's `done` in this thread, and then `answered`."""
        self._posted.put(posted)
        if self._over:  # it ended a moment ago, so nobody else will look
            self._refuse_posted()
            self._answered()

    def stop(self) -> None:
        self._patient = False
        self._posted.put(None)

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
            self._take_turn()
            try:
                self._disconnect()  # the last to close merges the WAL into the file
            finally:
                self._give_turn()

    def _work(self) -> None:
        self._batch = self._take(None if self._in_turn else self._pause)
        try:
            if self._batch or self._refused:
                self._write()
            self._look_for_others()
        except Exception as error:  # a bug, here or in a listener: it must not leave anybody waiting for ever
            logger.exception("the ledger's writer failed, and goes on")
            refuse(self._batch, _as_ledger_error(error))
        if self._posted.empty() or (self._in_turn and self._turns.wanted()):
            # In this order: who is frozen when it has got its answer shall not hold up the others
            # (test_a_frozen_process_does_not_stop_the_others_from_working).
            self._give_turn()
            self._answered()

    def _take(self, pause: float | None) -> list[Posted]:
        """What waits now; if nothing does, wait for it up to `pause` seconds."""
        batch, stop = take(self._posted, pause)
        self._stopping = self._stopping or stop
        return batch

    def _refuse_posted(self) -> None:
        while waiting := self._take(None):
            refuse(waiting, LedgerUnavailable("the ledger is closed"))

    # Batches

    def _write(self) -> None:
        while True:
            self._batch = [posted for posted in self._batch if not posted[0].unwanted]
            if not (self._batch or self._refused):
                return
            try:
                results = self._commit([change for change, _ in self._batch])
            except Busy as busy:
                if not self._patient:
                    refuse(self._batch, _as_ledger_error(busy))
                    return
                self._batch += self._take(None)
            except Exception as error:  # whose it is, each change shows when it is alone
                # Only its text is kept: its frames hold statements, and while one of those lives, closing the
                # connection does not give back its locks.
                why = str(error)
                break
            else:
                for (_, done), result in zip(self._batch, results, strict=True):
                    answer(done, result)
                return
        self._write_each(why)

    def _write_each(self, why: str) -> None:
        if len(self._batch) > 1:
            logger.warning(
                "a batch of %d changes failed and is applied one by one: %s", len(self._batch), why
            )
        for change, done in self._batch:
            try:
                answer(done, self._commit_alone(change))
            except Exception as error:  # it goes to who asked, whatever it is
                done(None, _as_ledger_error(error))

    def _commit_alone(self, change: Change[Any]) -> Any:
        change.again = True
        while True:
            try:
                return self._commit([change])[0]
            except Busy as busy:
                if change.unwanted or not self._patient:
                    raise LedgerUnavailable("the ledger is locked by another program") from busy

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

    # One transaction

    def _commit(self, changes: Sequence[Change[Any]]) -> list[Any]:
        try:
            return self._transact(changes, exact=False)
        except Inexact:
            pass
        except sqlite3.OperationalError as error:
            if not file.is_unreadable(error):
                raise
        return self._transact(changes, exact=True)

    def _transact(self, changes: Sequence[Change[Any]], *, exact: bool) -> list[Any]:
        self._take_turn()
        try:
            tx = self._begin(self._connection or self._reconnect(), exact=exact)
            try:
                results = self._apply(changes, tx)
            except BaseException as error:
                tx.over(committed=False)
                self._undo(error)
                if not tx.ending or _is_full(error):
                    for change in changes:
                        change.undone()
                raise
            tx.over(committed=True)
            self._check_place()
        except BaseException:
            self._give_turn()
            self._answered()  # for those of the batch before
            raise
        self.commits += 1
        if tx.freed:
            self._changed()
        if tx.asked:
            self._asked()
        return results

    def _apply(self, changes: Sequence[Change[Any]], tx: Transaction) -> list[Any]:
        # First what is to be forgotten, then `begin`: a change that was given up in between does not begin.
        forgotten = self._refused.forget(tx)
        results = apply(changes, tx)
        if tx.asked:
            tx.run(COUNT_CANCEL)
        self._answered()
        tx.ending = True
        tx.run("COMMIT")
        self._refused.drop(forgotten)
        return results

    def _begin(self, connection: sqlite3.Connection, *, exact: bool) -> FileTransaction:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except BaseException as error:
            if isinstance(error, sqlite3.Error) and _code(error) == sqlite3.SQLITE_BUSY:
                raise Busy from error
            self._undo(error)
            raise
        return FileTransaction(connection, self._clock(), self._turns, exact=exact)

    def _check_place(self) -> None:
        """A commit to a file that nobody will find again is no commit."""
        if not self._in_place():
            raise LedgerUnavailable(
                "the ledger's file was deleted or replaced under the app: put it back, or restart the app"
            )

    def _take_turn(self) -> None:
        if not self._in_turn:
            self._turns.take()
            self._in_turn = True

    def _give_turn(self) -> None:
        if self._in_turn:
            self._in_turn = False
            self._turns.give()

    # The connection: one for as long as nothing fails

    def _reconnect(self) -> sqlite3.Connection:
        self._check_place()  # to close a connection to another file would remove the WAL beside ours
        connection = self._connect()
        try:
            _data_version(connection)  # SQLite opens the file at its first use
            self._check_place()  # else it may be another file, put there for a moment
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._seen = None  # what others committed meanwhile was not seen
        return connection

    def _undo(self, error: BaseException) -> None:
        """Whatever failed, and whatever became of it: nothing is left open, and the next begins afresh."""
        try:
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if isinstance(error, Inexact):
                return  # nothing has failed
        except Exception:  # to close it, which follows, rolls back as well
            logger.debug("a transaction could not be rolled back", exc_info=True)
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _look_for_others(self) -> None:
        """Notice what other processes committed, now and then: their records may be ours to run."""
        now = time.monotonic()
        if now < self._looked + self._pause:
            return
        self._looked = now
        try:
            version, cancels = self._look()
        except sqlite3.Error as error:  # the next change will say so to who waits for it
            logger.warning("the ledger cannot be read: %s", error)
            self._disconnect()
            return
        if version != self._seen:
            self._seen, self._pause = version, SHORTEST_LOOK
            self._changed()
            if cancels != self._cancels:
                self._cancels = cancels
                self._asked()
        else:
            self._pause = min(self._pause * 1.5, LONGEST_LOOK)

    def _look(self) -> tuple[int | None, str | None]:
        """The version of the file, and, where it has changed, how many cancels were asked for."""
        if self._connection is None or (version := _data_version(self._connection)) == self._seen:
            return self._seen, self._cancels
        return version, _cancels(self._connection)


def _data_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _cancels(connection: sqlite3.Connection) -> str | None:
    found = connection.execute(CANCELS).fetchone()
    return None if found is None else str(found[0])


def _as_ledger_error(error: Exception) -> Exception:
    if isinstance(error, sqlite3.Error | OSError | Busy):
        return LedgerUnavailable(f"the ledger could not write: {error or 'locked by another program'}")
    return error


def _is_full(error: BaseException) -> bool:
    """A commit that found the disk full did not write its last frame, which alone makes it one."""
    return isinstance(error, sqlite3.Error) and _code(error) == sqlite3.SQLITE_FULL


def _code(error: sqlite3.Error) -> int:
    """SQLite's own code of an error, without its extension; 0 for one that the module raised by itself."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
