"""Reads beside the writer, in threads and sessions of their own, never on an event loop."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from segundo.errors import LedgerUnavailable
from segundo.ledger.postgres import statements as sql
from segundo.ledger.postgres.connecting import Place
from segundo.ledger.transaction import to_records
from segundo.record import Record, State

READERS = 4  # at the same time, and so many sessions at most
LONGEST_WAIT = 3.0  # seconds for a session, while the server cannot be reached
LONGEST_READ = 5.0  # seconds of one read


class Reader:
    """Its methods are called in `threads`. Raises LedgerUnavailable."""

    def __init__(self, place: Place) -> None:
        self.threads = ThreadPoolExecutor(READERS, thread_name_prefix="segundo-reader")
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

    def select(
        self, *, ids: Sequence[str] | None, state: State | None, limit: int, before: str | None
    ) -> Sequence[Record]:
        if ids is not None:
            return to_records(self._rows(sql.SELECT_IDS, (_known(ids),)))
        which: dict[str, object] = {"state": state, "limit": limit, "before": before}
        return to_records(self._rows(sql.SELECT, which))

    def waits_for(self, ids: Sequence[str]) -> dict[str, list[str]]:
        waiting: dict[str, list[str]] = {}
        for after, before in self._rows(sql.WAITS_FOR, (_known(ids),)):
            waiting.setdefault(after, []).append(before)
        return waiting

    def glance(self, ids: Sequence[str]) -> Sequence[tuple[object, ...]]:
        return self._rows(sql.GLANCE, (_known(ids),))

    def next_due(self, queues: Sequence[str] | None, but: Sequence[str]) -> tuple[float, float] | None:
        """When the first record is due, and what time it is there."""
        names = self._queues() if queues is None else queues
        dues = [self._rows(sql.NEXT_DUE, {"queue": queue})[0][0] for queue in names if queue not in but]
        first = min((due for due in dues if due is not None), default=None)
        return None if first is None else (first, self._rows(sql.NOW, ())[0][0])

    def _queues(self) -> list[str]:
        return [
            queue for statement in (sql.QUEUES, sql.SUSPECT_QUEUES) for (queue,) in self._rows(statement, ())
        ]

    def _rows(
        self, statement: str, parameters: tuple[object, ...] | dict[str, object]
    ) -> list[tuple[Any, ...]]:
        try:
            try:
                return self._ask(statement, parameters)
            except psycopg.OperationalError:
                return self._ask(statement, parameters)  # the session may be one from before a restart
        except (psycopg.Error, PoolTimeout) as error:
            raise LedgerUnavailable(f"the ledger could not be read: {error}") from error

    def _ask(
        self, statement: str, parameters: tuple[object, ...] | dict[str, object]
    ) -> list[tuple[Any, ...]]:
        with self._pool.connection() as connection:
            return connection.execute(statement.encode(), parameters).fetchall()


def _known(ids: Sequence[str]) -> str:
    """Ids as one text, without what can be none, and what PostgreSQL would refuse in a text."""
    return json.dumps([id for id in ids if id.isprintable()])
