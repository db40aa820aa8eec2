"""A visitor of a ledger on a server: reads it without joining it, in sessions that cannot write."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any, ClassVar

import psycopg

from segundo.errors import LedgerUnavailable, LedgerUnusable
from segundo.ledger.postgres import questions, statements
from segundo.ledger.postgres.connecting import Place
from segundo.ledger.postgres.migrations import SCHEMA_VERSION, version
from segundo.ledger.transaction import to_records
from segundo.ledger.visiting import PAGE, Visitor, Worker
from segundo.record import Record, State


class ServerVisitor(Visitor):
    """Reads the ledger at `url`."""

    sql: ClassVar[ModuleType] = statements
    ask: ClassVar[ModuleType] = questions

    def __init__(self, url: str) -> None:
        self._place = Place.at(url)
        try:
            self._connection = self._place.connect()
        except psycopg.Error as error:
            raise LedgerUnusable(f"ledger {self._place} cannot be opened: {error}") from error
        self._connection.execute("SET default_transaction_read_only = on")
        if self.schema() != SCHEMA_VERSION:
            self._connection.close()
            raise LedgerUnusable(
                f"there is no ledger at {self._place} that this Segundo knows: start the app, or run "
                "`segundo migrate`"
            )

    def close(self) -> None:
        self._connection.close()

    # Records

    def records(self, *, state: State | None, task: str | None, limit: int) -> Iterator[Record]:
        before: str | None = None
        while limit > 0:
            page = min(limit, PAGE)
            rows = self._rows(questions.RECORDS, before=before, state=state, task=task, limit=page)
            yield from to_records(rows)
            if len(rows) < page:
                return
            before, limit = rows[-1][0], limit - page

    # The whole

    def schema(self) -> int:
        return version(self._connection, self._place)

    def server(self) -> str:
        """Which one it is."""
        return f"PostgreSQL {self._rows(questions.SERVER)[0][0]}, {self._place}"

    def now(self) -> float:
        return float(self._rows(statements.NOW)[0][0])

    def workers(self) -> list[Worker]:
        return [Worker._make(row) for row in self._rows(questions.WORKERS)]

    def _rows(self, statement: str, *parameters: object, **named: object) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement.encode(), named or parameters).fetchall()
        except psycopg.Error as error:
            raise LedgerUnavailable(f"the ledger {self._place} cannot be read: {error}") from error
