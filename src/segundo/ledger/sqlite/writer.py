"""The thread that writes into the file: in turns with those of other processes.

While there is more to do, the turn is kept as long as nobody else waits for it, and the loop is woken for the
answers of a batch as the next one's COMMIT begins: it then has the interpreter to itself for that long.

What failed is applied again on a fresh connection.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from segundo.errors import LedgerUnavailable
from segundo.ledger.changes import Change
from segundo.ledger.posting import apply, refuse
from segundo.ledger.refused import Refused
from segundo.ledger.sqlite import file
from segundo.ledger.sqlite.statements import CANCELS, COUNT_CANCEL
from segundo.ledger.sqlite.transaction import FileTransaction, Inexact
from segundo.ledger.sqlite.turns import Turns
from segundo.ledger.transaction import Transaction
from segundo.ledger.writer import Writer

logger = logging.getLogger("segundo.ledger")

SHORTEST_LOOK, LONGEST_LOOK = 0.005, 0.1  # seconds between looks for commits of other processes


class Busy(Exception):
    """A stranger holds the write lock: nothing was changed, try again."""


class FileWriter(Writer):
    """`connect`: makes its connections. `in_place`: whether the file is still where it was opened.

    `changed`: called when others may have made records claimable; `asked`: when a cancel of what runs may
    have been asked for.
    """

    of_the_store: ClassVar[tuple[type[Exception], ...]] = (sqlite3.Error, OSError, Busy)

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
        super().__init__(refused=refused, answered=answered)
        self._connect = connect
        self._turns = turns
        self._in_place = in_place
        self._clock = clock
        self._changed = changed
        self._asked = asked
        self._patient = True  # waits while a stranger holds the lock
        self._in_turn = False
        self._connection: sqlite3.Connection | None = connect()
        self._seen: int | None = _data_version(self._connection)
        self._cancels = _cancels(self._connection)
        self._pause = LONGEST_LOOK
        self._looked = 0.0

    def stop(self) -> None:
        self._patient = False
        super().stop()

    # Between batches

    def _until_needed(self) -> float | None:
        return None if self._in_turn else self._pause

    def _rest(self) -> None:
        if self._posted.empty() or (self._in_turn and self._turns.wanted()):
            # In this order: who is frozen when it has got its answer shall not hold up the others
            # (test_a_frozen_process_does_not_stop_the_others_from_working).
            self._give_turn()
            self._answered()

    def _end(self) -> None:
        self._take_turn()
        try:
            self._disconnect()  # the last to close merges the WAL into the file
        finally:
            self._give_turn()

    # What a stranger's lock does

    def _try_again(self, error: Exception) -> bool:
        if not isinstance(error, Busy):
            return False
        if self._patient:
            self._batch += self._take(None)
        else:
            refuse(self._batch, self._reason(error))
            self._batch = []
        return True

    def _commit_alone(self, change: Change[Any]) -> Any:
        while True:
            try:
                return super()._commit_alone(change)
            except Busy:
                if change.unwanted or not self._patient:
                    raise

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
                raise Busy("it is locked by another program") from error
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

    def _look(self) -> None:
        """Notice what other processes committed, now and then: their records may be ours to run."""
        now = time.monotonic()
        if now < self._looked + self._pause:
            return
        self._looked = now
        try:
            version, cancels = self._version()
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

    def _version(self) -> tuple[int | None, str | None]:
        """The version of the file, and, where it has changed, how many cancels were asked for."""
        if self._connection is None or (version := _data_version(self._connection)) == self._seen:
            return self._seen, self._cancels
        return version, _cancels(self._connection)


def _data_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _cancels(connection: sqlite3.Connection) -> str | None:
    found = connection.execute(CANCELS).fetchone()
    return None if found is None else str(found[0])


def _is_full(error: BaseException) -> bool:
    """A commit that found the disk full did not write its last frame, which alone makes it one."""
    return isinstance(error, sqlite3.Error) and _code(error) == sqlite3.SQLITE_FULL


def _code(error: sqlite3.Error) -> int:
    """SQLite's own code of an error, without its extension; 0 for one that the module raised by itself."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
