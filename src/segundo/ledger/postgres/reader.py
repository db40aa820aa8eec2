"""Reads beside the writer, in threads and sessions of their own."""

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, ClassVar

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from segundo.errors import LedgerUnavailable
from segundo.ledger.postgres import statements
from segundo.ledger.postgres.connecting import Place
from segundo.ledger.reading import Reader

READERS = 4  # at the same time, and so many sessions at most
LONGEST_WAIT = 3.0  # seconds for a session, while the server cannot be reached
LONGEST_READ = 5.0  # seconds of one read


class ServerReader(Reader):
    """`clock`: unix seconds, for tests; None: the server's."""

    sql: ClassVar[ModuleType] = statements

    def __init__(self, place: Place, clock: Callable[[], float] | None = None) -> None:
        super().__init__(READERS)
        self._clock = clock
        self._pool = ConnectionPool(
            kwargs={**place.parameters(), "autocommit": True},
            configure=lambda connection: self._set_up(connection, place),
            min_size=0,
            max_size=READERS,
            timeout=LONGEST_WAIT,
            open=True,
            name="segundo",
        )

    @staticmethod
    def _set_up(connection: Any, place: Place) -> None:
        place.set_up(connection)
        connection.execute(f"SET statement_timeout = '{LONGEST_READ:g}s'")

    def close(self) -> None:
        self.threads.shutdown(wait=True)
        self._pool.close()

    def _now(self) -> float:
        return float(self._rows(statements.NOW)[0][0]) if self._clock is None else self._clock()

    def _listed(self, ids: Iterable[str]) -> str:
        """Without what can be no id, and what PostgreSQL would refuse in a text."""
        return super()._listed(id for id in ids if id.isprintable())

    def _rows(self, statement: str, *parameters: object, **named: object) -> list[tuple[Any, ...]]:
        try:
            try:
                return self._ask(statement, named or parameters)
            except psycopg.OperationalError:
                return self._ask(statement, named or parameters)  # the session may be from before a restart
        except (psycopg.Error, PoolTimeout) as error:
            raise LedgerUnavailable(f"the ledger could not be read: {error}") from error

    def _ask(
        self, statement: str, parameters: tuple[object, ...] | dict[str, object]
    ) -> list[tuple[Any, ...]]:
        with self._pool.connection() as connection:
            return connection.execute(statement.encode(), parameters).fetchall()
