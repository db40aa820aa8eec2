"""The one thread that writes: all that waits is committed together, and says that this process lives.

A batch that fails is undone and applied again: as a whole if it only stood in another's way, else each change
alone, so that a bad one fails alone. While the server cannot be reached, calls to be recorded wait for it, as
long as their requests do; everything else is refused at once, for who asked asks again.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from segundo.errors import LedgerUnavailable
from segundo.ledger.changes import Change, RecordCalls
from segundo.ledger.postgres.connecting import Connect, Connection
from segundo.ledger.postgres.contact import Contact
from segundo.ledger.postgres.transaction import ServerTransaction
from segundo.ledger.postgres.workers import Workers
from segundo.ledger.posting import Box, Posted, answer, apply, refuse, take
from segundo.ledger.refused import Refused

logger = logging.getLogger("segundo.ledger")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between tries to reach the server
TRIES = 3  # of a batch that stands in the way of another process's

# Another process holds what this one wants, and the other way round, or for too long: nothing was changed.
IN_THE_WAY = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.LockNotAvailable,
)
# The server answers, and takes no changes: it is a standby, or about to end.
NOT_NOW = (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.OperatorIntervention)


class Unreachable(Exception):
    """The server is not there, or the session broke."""


class Writer(threading.Thread):
    """Applies changes in batches until it is told to stop; what was posted before that is still applied.

    Who posts a change always gets an answer, whatever happens in here. `workers`: who of this process is to
    be kept alive; while one is, so is this thread, also after its end.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        connect: Connect,
        refused: Refused,
        workers: Workers,
        contact: Contact,
        patience: float,
        clock: Callable[[], float] | None,
        committed: Callable[[ServerTransaction], None],
        answered: Callable[[], None],
    ) -> None:
        super().__init__(name="segundo-ledger", daemon=True)
        self.commits = 0
        self._connect = connect
        self._refused = refused
        self._workers = workers
        self._contact = contact
        self._contact_needed = patience
        self._clock = clock
        self._committed = committed
        self._answered = answered
        self._posted: Box = Box()
        self._batch: list[Posted] = []  # what is being applied
        self._stopping = False
        self._over = False
        self._closed = threading.Event()
        self._pause = 0.0  # seconds until the server is tried again; 0: it is there
        self._connection: Connection | None = connection

    def post(self, posted: list[Posted]) -> None:
        """Apply these with the next batch and call each one's `done` in this thread, and then `answered`."""
        self._posted.put(posted)
        if self._over:  # it ended a moment ago, so nobody else will look
            self._refuse_posted()
            self._answered()

    def stop(self) -> None:
        self._posted.put(None)

    def join(self, timeout: float | None = None) -> None:
        """Wait until all that was posted is answered."""
        self._closed.wait(timeout)

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
            self._closed.set()
            self._live_on()
            self._disconnect()

    def _work(self) -> None:
        self._batch = self._take(self._workers.until_due())
        try:
            if self._batch or self._refused or self._workers.until_due() == 0:
                self._write()
        except Exception as error:  # a bug, here or in a listener: it must not leave anybody waiting for ever
            logger.exception("the ledger's writer failed, and goes on")
            refuse(self._batch, _as_ledger_error(error))
        self._answered()

    def _take(self, pause: float | None) -> list[Posted]:
        batch, stop = take(self._posted, pause)
        self._stopping = self._stopping or stop
        return batch

    def _refuse_posted(self) -> None:
        while waiting := self._take(None):
            refuse(waiting, LedgerUnavailable("the ledger is closed"))

    def _live_on(self) -> None:
        """The ledger is closed, and a thread of this process still runs a task: nobody else may."""
        while not self._workers.gone.wait(self._workers.until_due()) and self._workers:
            try:
                self._commit([])
            except Exception as error:
                logger.debug("a lease was not renewed: %s", error)
                self._workers.gone.wait(LONGEST_PAUSE)

    # Batches

    def _write(self) -> None:
        tries = 0
        while True:
            self._batch = [posted for posted in self._batch if not posted[0].unwanted]
            try:
                results = self._commit([change for change, _ in self._batch])
            except Unreachable as error:
                self._wait_for_the_server(error)
                if not self._batch:
                    return
            except IN_THE_WAY as error:
                tries += 1
                why = str(error)
                if tries == TRIES:
                    break
            except Exception as error:
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
            change.again = True
            try:
                (result,) = self._commit([change])
                answer(done, result)
            except Exception as error:
                done(None, _as_ledger_error(error))

    def _wait_for_the_server(self, error: Unreachable) -> None:
        for change, _ in self._batch:
            change.again = True
        if self._pause == 0:  # perhaps only the session broke: at once, and with everything
            logger.warning("the ledger's server cannot be reached: %s", error)
            self._pause = FIRST_PAUSE
            return
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        give_up = time.monotonic() + self._pause
        self._keep_what_can_wait(error)
        while not self._stopping and (left := give_up - time.monotonic()) > 0:
            self._batch += self._take(left)
            self._keep_what_can_wait(error)
        if self._stopping:
            refuse(self._batch, _as_ledger_error(error))
            self._batch = []
            self._answered()

    def _keep_what_can_wait(self, error: Unreachable) -> None:
        others = [posted for posted in self._batch if not isinstance(posted[0], RecordCalls)]
        self._batch = [posted for posted in self._batch if isinstance(posted[0], RecordCalls)]
        refuse(others, _as_ledger_error(error))
        self._answered()

    def _forget_at_last(self) -> None:
        if self._refused:
            try:
                self._commit([])
            except Exception as error:
                logger.error(
                    "%d calls of refused requests may still be in the ledger, and would run when another "
                    "process takes over: %s",
                    len(self._refused),
                    error,
                )

    # One transaction

    def _commit(self, changes: Sequence[Change[Any]]) -> list[Any]:
        connection = self._connection or self._reconnect()
        ending = False
        try:
            tx = self._begin(connection)
            try:
                forgotten = self._refused.forget(tx)
                results = apply(changes, tx)
                ending = True
                if connection.execute("COMMIT").statusmessage != "COMMIT":
                    raise psycopg.OperationalError("the server has undone the transaction")
            except BaseException:
                tx.over(committed=False)
                raise
        except BaseException as error:
            self._undo(connection, changes, error, ending=ending)
            if connection.closed or isinstance(error, NOT_NOW):
                self._lose()
                raise Unreachable(str(error)) from error
            raise
        tx.over(committed=True)
        self._refused.drop(forgotten)
        self._workers.renewed()
        self.commits += 1
        self._committed(tx)
        return results

    def _begin(self, connection: Connection) -> ServerTransaction:
        try:
            now = self._workers.begin(connection)
        except psycopg.errors.LockNotAvailable as error:
            raise Unreachable("an earlier session of this process has not ended yet") from error
        self._contact.made(now)
        if self._pause:
            logger.info("the ledger's server is back")
            self._pause = 0.0
        return ServerTransaction(
            connection,
            now if self._clock is None else self._clock(),
            lease=self._workers.lease,
            may_rescue=self._contact.lasts(self._contact_needed),
        )

    def _undo(
        self, connection: Connection, changes: Sequence[Change[Any]], error: BaseException, *, ending: bool
    ) -> None:
        """Whatever failed: nothing is left open. Only a COMMIT without an answer may have been one."""
        answered = isinstance(error, psycopg.Error) and error.sqlstate is not None
        if not ending or answered:
            for change in changes:
                change.undone()
        try:
            if not connection.closed:
                connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()

    def _reconnect(self) -> Connection:
        try:
            self._connection = self._connect()
        except psycopg.Error as error:
            self._lose()
            raise Unreachable(str(error)) from error
        return self._connection

    def _lose(self) -> None:
        self._contact.lost()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _as_ledger_error(error: Exception) -> Exception:
    if isinstance(error, psycopg.Error | OSError | Unreachable):
        return LedgerUnavailable(f"the ledger could not write: {error}")
    return error
