"""The ledger in a PostgreSQL database: any number of hosts and processes."""

import functools
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from typing import Literal

import psycopg

from segundo.errors import LedgerUnusable
from segundo.ledger import workers as processes
from segundo.ledger.postgres import limits
from segundo.ledger.postgres.bell import CANCELS, CHANGED, CLAIMABLE, Bell, Words
from segundo.ledger.postgres.connecting import Connect, Connection, Place
from segundo.ledger.postgres.contact import Contact
from segundo.ledger.postgres.migrations import migrate
from segundo.ledger.postgres.reader import ServerReader
from segundo.ledger.postgres.transaction import ServerTransaction
from segundo.ledger.postgres.workers import LEASE, Worker, Workers
from segundo.ledger.postgres.writer import ServerWriter
from segundo.ledger.refused import Refused
from segundo.ledger.written import WrittenLedger


class PostgresLedger(WrittenLedger):
    """Records in one database, written by one session of each process with group commit. See
    `segundo.ledger.Ledger` for each method.

    `url`: "postgresql://user@host/database?schema=segundo". `durability`: "full" (a commit is on the server's
    disk, and its synchronous standbys', before it returns) or "normal" (a crash of the server may take the
    last commits). `record_timeout`: seconds that a request waits for its records. `clock`: unix seconds, for
    tests; None: the server's. `lease`: seconds that a process lives from its last word. `patience`: seconds
    of unbroken contact before it takes over from the dead; None: a lease. `connect`: makes the session that
    writes, here a fault can be put in.
    """

    def __init__(
        self,
        url: str,
        *,
        durability: Literal["full", "normal"] = "full",
        record_timeout: float = 5.0,
        clock: Callable[[], float] | None = None,
        lease: float = LEASE,
        patience: float | None = None,
        connect: Connect | None = None,
    ) -> None:
        self.place = Place.at(url)
        super().__init__(str(self.place), record_timeout)
        self._durability = durability
        self._clock = clock
        self._lease = lease
        self._patience = lease if patience is None else patience
        self._connect = connect or functools.partial(self.place.connect, synchronous=durability == "full")

    def flaw(self, columns: Mapping[str, object]) -> str | None:
        return limits.flaw(columns)

    # Life

    def _open(self) -> None:
        try:
            connection = self._connect()
        except psycopg.Error as error:
            raise LedgerUnusable(f"ledger {self.place} cannot be opened: {error}") from error
        try:
            migrate(connection, self.place)
        except psycopg.Error as error:
            connection.close()
            raise LedgerUnusable(f"ledger {self.place} cannot be opened: {error}") from error
        except BaseException:
            connection.close()
            raise
        self._refused = Refused()
        self._workers = Workers(self._lease)
        self._writer = self._new_writer(connection)
        self._reader = ServerReader(self.place, self._clock)
        self._bell = Bell(
            functools.partial(self.place.connect, synchronous=False),
            channel=self.place.schema,
            me=secrets.token_hex(8),
            heard=self._heard,
        )
        self._writer.start()
        self._bell.start()
        self._bell.listening.wait(self.record_timeout)

    def _new_writer(self, connection: Connection) -> ServerWriter:
        return ServerWriter(
            connection,
            connect=self._connect,
            refused=self._refused,
            workers=self._workers,
            contact=Contact(self._lease),
            patience=self._patience,
            clock=self._clock,
            committed=self._committed,
            answered=self._answered,
        )

    def _close(self, dead: bool) -> None:
        while self._left:
            owner = self._left.pop()
            self._writer.post([(processes.Go(owner), functools.partial(self._gone, owner))])
        if dead:
            self._workers.let_die()
        self._writer.stop()
        self._writer.join(self.record_timeout)
        if not self._workers:
            self._workers.gone.set()
        self._bell.stop()
        self._bell.join(self.record_timeout)
        self._reader.close()

    def _gone(self, owner: str, forgotten: bool | None, error: BaseException | None) -> None:
        if forgotten:
            self._workers.drop(owner)

    async def join(self, owner: str, *, moving: bool = False) -> None:
        number = await self._change(processes.Join(owner, self._durability, moving=moving))
        self._workers.add(Worker(number, owner, socket.gethostname(), os.getpid(), self._durability))

    @property
    def owners(self) -> list[str]:
        """Who of this process is kept alive."""
        return self._workers.ids

    # In the threads of the writer and of the bell

    def _committed(self, tx: ServerTransaction) -> None:
        words = {CHANGED: True, CLAIMABLE: tx.claimable, CANCELS: tx.asked}
        self._bell.ring(frozenset(word for word, said in words.items() if said))
        if tx.freed:
            self._changed()
        if tx.asked:
            self._asked()

    def _heard(self, words: Words) -> None:
        if CANCELS in words:
            self._asked()
        if CLAIMABLE in words:
            self._changed()
        elif self._watch is not None:
            self._watch.wake()
