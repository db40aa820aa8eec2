"""The thread that writes to the server, and says there that this process lives.

A batch that only stood in another's way is tried again as a whole. While the server cannot be reached, calls
to be recorded wait for it, as long as their requests do; everything else is refused at once, for who asked
asks again.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import psycopg

from segundo.errors import LedgerMoved
from segundo.ledger.changes import Change, RecordCalls
from segundo.ledger.postgres.connecting import Connect, Connection
from segundo.ledger.postgres.contact import Contact
from segundo.ledger.postgres.exchange import Exchange
from segundo.ledger.postgres.transaction import ServerTransaction
from segundo.ledger.postgres.workers import Workers
from segundo.ledger.posting import Posted, apply, give, refuse
from segundo.ledger.refused import Refused
from segundo.ledger.writer import Writer

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


class ServerWriter(Writer):
    """`workers`: who of this process is to be kept alive; while one is, so is this thread, also after its
    end. `patience`: seconds of unbroken contact before it may say who is dead. `clock`: for tests; None: the
    server's. `committed`: called after each commit.
    """

    of_the_store: ClassVar[tuple[type[Exception], ...]] = (psycopg.Error, OSError, Unreachable)

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
        super().__init__(refused=refused, answered=answered)
        self._connect = connect
        self._workers = workers
        self._contact = contact
        self._contact_needed = patience
        self._clock = clock
        self._committed = committed
        self._closed = threading.Event()
        self._tries = 0  # of this batch, which stands in another's way
        self._pause = 0.0  # seconds until the server is tried again; 0: it is there
        self._connection: Connection | None = connection
        self._prepared: Connection | None = None  # the session that knows the statements of an exchange

    def join(self, timeout: float | None = None) -> None:
        """Wait until all that was posted is answered."""
        self._closed.wait(timeout)

    # Between batches

    def _until_needed(self) -> float | None:
        return self._workers.until_due()

    @property
    def _needed(self) -> bool:
        return super()._needed or self._workers.until_due() == 0

    def _look(self) -> None:
        """Nothing to do: the bell tells."""

    def _rest(self) -> None:
        self._tries = 0
        self._answered()

    def _end(self) -> None:
        self._closed.set()
        self._live_on()
        self._disconnect()

    def _live_on(self) -> None:
        """The ledger is closed, and a thread of this process still runs a task: nobody else may."""
        while not self._workers.gone.wait(self._workers.until_due()) and self._workers:
            try:
                self._commit([])
            except Exception as error:
                logger.debug("a lease was not renewed: %s", error)
                self._workers.gone.wait(LONGEST_PAUSE)

    # What the server's absence does, and other processes

    def _try_again(self, error: Exception) -> bool:
        if isinstance(error, Unreachable):
            self._wait_for_the_server(error)
            return True
        self._tries += 1
        return isinstance(error, IN_THE_WAY) and self._tries < TRIES

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
            refuse(self._batch, self._reason(error))
            self._batch = []
            self._answered()

    def _keep_what_can_wait(self, error: Unreachable) -> None:
        others = [posted for posted in self._batch if not isinstance(posted[0], RecordCalls)]
        self._batch = [posted for posted in self._batch if isinstance(posted[0], RecordCalls)]
        refuse(others, self._reason(error))
        self._answered()

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
            self._check_session(connection, error)
            raise
        tx.over(committed=True)
        self._refused.drop(forgotten)
        self._workers.renewed()
        self._is_committed(tx)
        return results

    # One exchange

    def make_at_once(self, posted: Posted) -> bool:
        if not self._working.acquire(blocking=False):
            return False
        try:
            return not (self._over or self._stopping) and self._make_here(posted)
        finally:
            self._working.release()

    def _make_here(self, posted: Posted) -> bool:
        batch = [*self._kept.take(), posted]
        results: Mapping[Change[Any], Any] = {}
        try:
            results = self._exchange(batch)
        except Exception as error:
            logger.debug("an exchange failed, and what it was for is asked for again: %s", error)
            for change, _ in batch:
                change.again = change.in_full = True
        left = give(results, batch)
        self._answered()
        if posted in left:
            left.remove(posted)
        if left:
            self.post(left)
        return posted[0] in results

    def _exchange(self, batch: Sequence[Posted]) -> Mapping[Change[Any], Any]:
        changes = [change for change, _ in batch]
        exchange = Exchange.of(changes)
        connection = self._connection
        if exchange is None or connection is None or not self._may_exchange(exchange):
            return {}
        try:
            if self._prepared is not connection:
                Exchange.prepare(connection)
                self._prepared = connection
            made = exchange.make(connection, self._workers, None if self._clock is None else self._clock())
        except BaseException as error:
            self._undo(connection, changes, error, ending=True)
            self._check_session(connection, error)
            raise
        self._contact.made(made.now)
        self._is_committed(self._transaction(connection, made.now))
        results = made.results()
        for change in changes:
            change.in_full = change not in results
        return results

    def _may_exchange(self, exchange: Exchange) -> bool:
        """Whether there is nothing that a transaction has to begin with just now."""
        if self._needed or self._pause:
            return False
        return not exchange.claims or exchange.owner in self._workers.ids

    def _is_committed(self, tx: ServerTransaction) -> None:
        self.commits += 1
        self._committed(tx)

    def _begin(self, connection: Connection) -> ServerTransaction:
        try:
            now = self._workers.begin(connection)
        except psycopg.errors.LockNotAvailable as error:
            raise Unreachable("an earlier session of this process has not ended yet") from error
        except LedgerMoved as error:  # it was taken for dead, and then all were moved
            raise Unreachable(str(error)) from error
        self._contact.made(now)
        if self._pause:
            logger.info("the ledger's server is back")
            self._pause = 0.0
        return self._transaction(connection, now)

    def _transaction(self, connection: Connection, now: float) -> ServerTransaction:
        return ServerTransaction(
            connection,
            now if self._clock is None else self._clock(),
            lease=self._workers.lease,
            may_rescue=self._contact.lasts(self._contact_needed),
        )

    def _check_session(self, connection: Connection, error: BaseException) -> None:
        """Raise Unreachable if it is of no more use."""
        if connection.closed or isinstance(error, NOT_NOW):
            self._lose()
            raise Unreachable(str(error)) from error

    @staticmethod
    def _undo(
        connection: Connection, changes: Sequence[Change[Any]], error: BaseException, *, ending: bool
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
