"""The one thread that writes: all that waits is committed together (group commit).

A batch that fails is undone and its changes are applied again, each alone and on a fresh connection, so that
a bad one fails alone and an unknown outcome becomes known. Nothing here is ever called on an event loop.
"""

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from segundo.errors import LedgerUnavailable
from segundo.ledger.sqlite.changes import Change, Settle
from segundo.ledger.sqlite.transaction import Transaction
from segundo.ledger.sqlite.turns import Turns

logger = logging.getLogger("segundo.ledger")

Done = Callable[[Any, BaseException | None], None]  # called in the writer's thread: result, error

BATCH = 512
SHORTEST_LOOK, LONGEST_LOOK = 0.005, 0.05  # seconds between looks for commits of other processes


class Busy(Exception):
    """A stranger holds the write lock: nothing was changed, try again."""


class Writer(threading.Thread):
    """Applies changes in batches until it is told to stop; what was posted before that is still applied."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        turns: Turns,
        *,
        in_place: Callable[[], bool],
        clock: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        super().__init__(name="segundo-ledger", daemon=True)
        self.commits = 0
        self._connect = connect
        self._turns = turns
        self._in_place = in_place
        self._clock = clock
        self._changed = changed
        self._posted: queue.SimpleQueue[tuple[Change[Any], Done] | None] = queue.SimpleQueue()
        self._connection = connect()
        self._stopping = False
        self._seen: int = self._data_version()
        self._pause = LONGEST_LOOK

    def post(self, change: Change[Any], done: Done) -> None:
        """Apply `change` with the next batch, then call `done` in this thread."""
        self._posted.put((change, done))

    def stop(self) -> None:
        self._posted.put(None)

    def run(self) -> None:
        while not self._stopping:
            batch = self._take(self._pause)
            if batch:
                self._write(batch)
            self._look_for_others()
        self._connection.close()

    def _take(self, pause: float | None) -> list[tuple[Change[Any], Done]]:
        """What waits now; if nothing does, wait for it up to `pause` seconds."""
        batch: list[tuple[Change[Any], Done]] = []
        try:
            item = self._posted.get(timeout=pause) if pause else self._posted.get_nowait()
            while item is not None and len(batch) < BATCH:
                batch.append(item)
                item = self._posted.get_nowait()
            if item is None:
                self._stopping = True
            else:
                batch.append(item)
        except queue.Empty:
            pass
        return batch

    def _write(self, batch: list[tuple[Change[Any], Done]]) -> None:
        while True:
            batch = [item for item in batch if not item[0].unwanted]
            if not batch:
                return
            try:
                results = self._commit([change for change, _ in batch])
            except Busy as busy:
                if self._stopping:
                    _refuse(batch, busy)
                    return
                batch += self._take(None)
            except Exception as error:
                self._write_each(batch, error)
                return
            else:
                for (_, done), result in zip(batch, results, strict=True):
                    done(result, None)
                return

    def _write_each(self, batch: list[tuple[Change[Any], Done]], error: Exception) -> None:
        if len(batch) > 1:
            logger.warning("a batch of %d changes failed and is applied one by one: %s", len(batch), error)
        for change, done in batch:
            try:
                done(self._commit_alone(change), None)
            except Exception as reason:
                done(None, _as_ledger_error(reason))

    def _commit_alone(self, change: Change[Any]) -> Any:
        self._connection.close()
        self._connection = self._connect()
        self._seen = self._data_version()
        if isinstance(change, Settle):
            change.again = True
        while True:
            try:
                return self._commit([change])[0]
            except Busy as busy:
                if change.unwanted or self._stopping:
                    raise LedgerUnavailable("the ledger is locked by another program") from busy

    def _commit(self, changes: Sequence[Change[Any]]) -> list[Any]:
        with self._turns.turn():
            self._check_place()
            self._begin()
            tx = Transaction(self._connection, self._clock(), self._turns)
            try:
                results = _apply(changes, tx)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                tx.over()
            self._check_place()
        self.commits += 1
        if tx.freed:
            self._changed()
        return results

    def _begin(self) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise Busy from error
            raise

    def _check_place(self) -> None:
        """A commit to a file that nobody will find again is no commit."""
        if not self._in_place():
            raise LedgerUnavailable(
                "the ledger's file was deleted or replaced under the app: put it back, or restart the app"
            )

    def _look_for_others(self) -> None:
        """Notice what other processes committed: their records may be ours to run."""
        try:
            version = self._data_version()
        except (
            sqlite3.Error
        ) as error:  # a full disk, a failing one: the next change will say so to who waits for it
            logger.warning("the ledger cannot be read: %s", error)
            self._pause = LONGEST_LOOK
            return
        if version != self._seen:
            self._seen, self._pause = version, SHORTEST_LOOK
            self._changed()
        else:
            self._pause = min(self._pause * 1.5, LONGEST_LOOK)

    def _data_version(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])


def _apply(changes: Sequence[Change[Any]], tx: Transaction) -> list[Any]:
    """Apply a batch kind by kind, in the kinds' order; results come in the order of `changes`."""
    results: list[Any] = [None] * len(changes)
    order = sorted(
        range(len(changes)), key=lambda index: (changes[index].order, type(changes[index]).__name__)
    )
    for kind, group in groupby(order, key=lambda index: type(changes[index])):
        indexes = list(group)
        for index, result in zip(indexes, kind.apply_all([changes[i] for i in indexes], tx), strict=True):
            results[index] = result
    return results


def _refuse(batch: Sequence[tuple[Change[Any], Done]], reason: Exception) -> None:
    for _, done in batch:
        done(None, _as_ledger_error(reason))


def _as_ledger_error(error: Exception) -> Exception:
    if isinstance(error, sqlite3.Error | OSError | Busy):
        return LedgerUnavailable(f"the ledger could not write: {error or 'locked by another program'}")
    return error
