"""A visitor: somebody who reads a ledger without joining it and without changing a byte of its file."""

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Self

from segundo.errors import LedgerUnavailable, LedgerUnusable, UnknownRecord
from segundo.ledger.sqlite import file
from segundo.ledger.sqlite import questions as ask
from segundo.ledger.sqlite import statements as sql
from segundo.ledger.sqlite.turns import Turns, lock_file
from segundo.ledger.transaction import to_records
from segundo.ledger.visiting import Glimpse, Worker
from segundo.record import Record, State, waits_for

LONGEST_READ = 0.1  # seconds; a longer read would keep the WAL of a busy app from being checkpointed
LONGEST_CHECK = 30.0  # seconds that the check of the whole file may take
STEPS = 1000  # SQLite operations between two looks at the clock
PAGE, STRETCH = 200, 10_000  # rows of a walk's first read, and of later ones where they are quick to read
FEW = 10_000  # up to so many records of one state are found by its index, and sorted here


class TooLong(LedgerUnavailable):
    """A read would have held on to the file for longer than it may."""


class Visitor:
    """Reads the ledger at `path`. Raises LedgerUnusable if there is none, or if it is none of ours.

    A long answer comes in many short reads, so it is not of one moment: a record that changes meanwhile is
    seen as it was or as it is.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise LedgerUnusable(
                f"there is no ledger at {path}: name it with --ledger or SEGUNDO_LEDGER, or go to its folder"
            )
        if not os.access(path, os.R_OK):
            raise LedgerUnusable(
                f"ledger {path} may not be read by this user: ask its owner, or be its owner"
            )
        self.path = path
        self._deadline = float("inf")
        self._connection = _connect(path)
        self._connection.set_progress_handler(self._is_too_long, STEPS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    # Records

    def find(self, prefix: str) -> Record:
        """The record whose id is, or alone begins with, `prefix`. Raises UnknownRecord."""
        found = [id for (id,) in self._rows(ask.FIND, prefix=prefix)] if prefix else []
        if not found:
            raise UnknownRecord(f"no record has the id {prefix!r}")
        if len(found) > 1 and found[0] != prefix:
            raise UnknownRecord(f"several records have an id that begins with {prefix!r}; give more of it")
        return self._records(found[:1])[0]

    def records(self, *, state: State | None, task: str | None, limit: int) -> Iterator[Record]:
        """Up to `limit` records, the newest first, of this state and task where they are given."""
        ids = self._ids(state, task)
        found = (
            record
            for page in iter(lambda: list(islice(ids, min(PAGE, limit))), [])
            for record in self._records(page)
            if state in (None, record.state) and task in (None, record.task)
        )
        return islice(found, limit)

    def waits_for(self, record: Record) -> list[str]:
        """What this one waits for: see `segundo.record.waits_for`."""
        waiting = record.state is State.WAITING
        before = [id for _, id in self._rows(sql.WAITS_FOR, json.dumps([record.id]))] if waiting else []
        return waits_for(record, before)

    def walk(self, statement: str = ask.WALK) -> Iterator[Glimpse]:
        """Every record, the newest first."""
        before, limit = ask.NEWEST, PAGE
        while True:
            try:
                glimpses = [Glimpse._make(row) for row in self._rows(statement, before=before, limit=limit)]
            except TooLong:
                if limit == 1:
                    raise
                limit = max(1, limit // 8)
                continue
            yield from glimpses
            if len(glimpses) < limit:
                return
            before, limit = glimpses[-1].id, min(2 * limit, STRETCH)

    def _ids(self, state: State | None, task: str | None) -> Iterator[str]:
        if state is not None and state in ask.IN_STATE:
            ids = [id for (id,) in self._rows(ask.IN_STATE[state], limit=FEW + 1)]
            if len(ids) <= FEW:
                return iter(sorted(set(ids), reverse=True))
        walk = self.walk(ask.WALK_FAILED if state is State.FAILED else ask.WALK)
        return (seen.id for seen in walk if state in (None, seen.state) and task in (None, seen.task))

    def _records(self, ids: Sequence[str]) -> list[Record]:
        try:
            return to_records(self._rows(sql.SELECT_IDS, json.dumps(ids)))
        except TooLong:
            if len(ids) == 1:
                raise
            half = len(ids) // 2
            return self._records(ids[:half]) + self._records(ids[half:])

    # The whole

    def schema(self) -> int:
        """The version of the file's schema."""
        return int(self._rows(ask.SCHEMA)[0][0])

    def strangers(self) -> tuple[list[str], list[str]]:
        """What of the ledger's own tables and indexes is missing or changed, and the triggers and views.

        Tables of others may share the file.
        """
        found = set(self._rows(ask.MADE))
        ours = file.made()
        missing = [name for _, name, _, _ in sorted(ours - found)]
        acting = [
            f"{kind} {name} on {table}" if kind == "trigger" else f"{kind} {name}"
            for kind, name, table, _ in sorted(found - ours)
            if kind in ("trigger", "view")
        ]
        return missing, acting

    def workers(self) -> list[Worker]:
        """The processes that joined. Which of them live is asked, and nothing is taken from the dead."""
        rows = self._rows(ask.WORKERS)
        living = Turns.living(lock_file(self.path), [row[0] for row in rows])
        return [Worker._make((*row, row[0] in living)) for row in rows]

    def notes(self) -> dict[str, str]:
        """What is said of the ledger as a whole."""
        return dict(self._rows(ask.NOTES))

    def longest(self) -> Record | None:
        """The record whose attempt has run for the longest."""
        return next(iter(to_records(self._rows(ask.LONGEST))), None)

    def orphans(self) -> int:
        """How many records are in the hands of nobody that the ledger knows: none, if all is well."""
        return int(self._rows(ask.ORPHANS)[0][0])

    def oldest_due(self) -> float | None:
        """When the first of the queued records may be claimed, or could have been."""
        queues = {queue for names in (sql.QUEUES, sql.SUSPECT_QUEUES) for (queue,) in self._rows(names)}
        dues = [self._rows(sql.NEXT_DUE, queue=queue)[0][0] for queue in queues]
        return min((due for due in dues if due is not None), default=None)

    def damage(self) -> list[str]:
        """What SQLite finds wrong with the file. Raises TooLong after 30 s."""
        found = [line for (line,) in self._rows(ask.CHECK, within=LONGEST_CHECK)]
        return [] if found == ["ok"] else found

    def _rows(
        self, statement: str, *parameters: object, within: float = LONGEST_READ, **named: object
    ) -> Any:
        self._deadline = time.monotonic() + within
        try:
            return self._connection.execute(statement, named or parameters).fetchall()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                raise TooLong("the ledger is too large, or its disk too slow, to answer that") from error
            raise LedgerUnavailable(f"the ledger {self.path} cannot be read: {error}") from error
        except sqlite3.DatabaseError as error:
            raise LedgerUnusable(f"the ledger {self.path} is damaged: {error}") from error
        finally:
            self._deadline = float("inf")

    def _is_too_long(self) -> bool:
        return time.monotonic() > self._deadline


def _connect(path: Path) -> sqlite3.Connection:
    """A read-only connection, also where this user may not create the two files that SQLite reads through."""
    try:
        try:
            return _checked(file.read_only(path), path)
        except sqlite3.OperationalError:
            if _has_wal(path):
                raise
            # Nobody has the file open, and nothing waits to be merged into it: it is all there is.
            return _checked(file.read_only(path, immutable=True), path)
    except sqlite3.DatabaseError as error:
        raise LedgerUnusable(f"ledger {path} cannot be opened: {error}") from error


def _checked(connection: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    try:
        file.check(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _has_wal(path: Path) -> bool:
    try:
        return path.with_name(path.name + "-wal").stat().st_size > 0
    except FileNotFoundError:
        return False
