"""A visitor of a ledger on a server: reads it without joining it, in sessions that cannot write."""

import json
from collections.abc import Iterator
from typing import Any, Self

import psycopg

from segundo.errors import LedgerUnavailable, LedgerUnusable, UnknownRecord
from segundo.ledger.postgres import questions as ask
from segundo.ledger.postgres import statements as sql
from segundo.ledger.postgres.connecting import Place
from segundo.ledger.postgres.migrations import SCHEMA_VERSION, version
from segundo.ledger.transaction import to_records
from segundo.ledger.visiting import Glimpse, Worker
from segundo.record import Record, State, waits_for

PAGE, STRETCH = 200, 10_000  # rows of a walk's first read, and of later ones


class ServerVisitor:
    """See `segundo.ledger.visiting.Looks`. Raises LedgerUnusable if there is no ledger of ours."""

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    # Records

    def find(self, prefix: str) -> Record:
        found = [id for (id,) in self._rows(ask.FIND, prefix=prefix)] if prefix.isprintable() else []
        if not found or not prefix:
            raise UnknownRecord(f"no record has the id {prefix!r}")
        if len(found) > 1 and found[0] != prefix:
            raise UnknownRecord(f"several records have an id that begins with {prefix!r}; give more of it")
        return to_records(self._rows(sql.SELECT_IDS, json.dumps(found[:1])))[0]

    def records(self, *, state: State | None, task: str | None, limit: int) -> Iterator[Record]:
        before: str | None = None
        while limit > 0:
            page = min(limit, PAGE)
            rows = self._rows(ask.RECORDS, before=before, state=state, task=task, limit=page)
            yield from to_records(rows)
            if len(rows) < page:
                return
            before, limit = rows[-1][0], limit - page

    def waits_for(self, record: Record) -> list[str]:
        waiting = record.state is State.WAITING
        before = [id for _, id in self._rows(sql.WAITS_FOR, json.dumps([record.id]))] if waiting else []
        return waits_for(record, before)

    def walk(self) -> Iterator[Glimpse]:
        before, limit = None, PAGE
        while True:
            glimpses = [Glimpse._make(row) for row in self._rows(ask.WALK, before=before, limit=limit)]
            yield from glimpses
            if len(glimpses) < limit:
                return
            before, limit = glimpses[-1].id, min(2 * limit, STRETCH)

    # The whole

    def schema(self) -> int:
        """The version of the ledger's schema."""
        return version(self._connection, self._place)

    def server(self) -> str:
        """Which one it is."""
        return f"PostgreSQL {self._rows(ask.SERVER)[0][0]}, {self._place}"

    def clock(self) -> float:
        """The server's time."""
        return float(self._rows(sql.NOW)[0][0])

    def workers(self) -> list[Worker]:
        return [Worker._make(row) for row in self._rows(ask.WORKERS)]

    def notes(self) -> dict[str, str]:
        return dict(self._rows(ask.NOTES))

    def longest(self) -> Record | None:
        return next(iter(to_records(self._rows(ask.LONGEST))), None)

    def orphans(self) -> int:
        return int(self._rows(ask.ORPHANS)[0][0])

    def oldest_due(self) -> float | None:
        queues = {queue for names in (sql.QUEUES, sql.SUSPECT_QUEUES) for (queue,) in self._rows(names)}
        dues = [self._rows(sql.NEXT_DUE, queue=queue)[0][0] for queue in queues]
        return min((due for due in dues if due is not None), default=None)

    def _rows(self, statement: str, *parameters: object, **named: object) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement.encode(), named or parameters).fetchall()
        except psycopg.Error as error:
            raise LedgerUnavailable(f"the ledger {self._place} cannot be read: {error}") from error
