"""A visitor: somebody who reads a ledger without joining it and without changing a byte of its file."""

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from segundo.errors import LedgerUnavailable, LedgerUnusable
from segundo.ledger.sqlite import file, questions, statements
from segundo.ledger.sqlite.brief import LONGEST_READ, Brief
from segundo.ledger.sqlite.turns import Turns, lock_file
from segundo.ledger.visiting import PAGE, TooLong, Visitor, Worker
from segundo.record import Record, State

LONGEST_CHECK = 30.0  # seconds that the check of the whole file may take
FEW = 10_000  # up to so many records of one state are found by its index, and sorted here


class FileVisitor(Visitor):
    """Reads the ledger at `path`."""

    sql: ClassVar[ModuleType] = statements
    ask: ClassVar[ModuleType] = questions

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
        self._connection = _connect(path)
        self._brief = Brief(self._connection)

    def close(self) -> None:
        self._connection.close()

    # Records

    def records(self, *, state: State | None, task: str | None, limit: int) -> Iterator[Record]:
        ids = self._ids(state, task)
        found = (
            record
            for page in iter(lambda: list(islice(ids, min(PAGE, limit))), [])
            for record in self._records(page)
            if state in (None, record.state) and task in (None, record.task)
        )
        return islice(found, limit)

    def _ids(self, state: State | None, task: str | None) -> Iterator[str]:
        if state is not None and state in questions.IN_STATE:
            ids = [id for (id,) in self._rows(questions.IN_STATE[state], limit=FEW + 1)]
            if len(ids) <= FEW:
                return iter(sorted(set(ids), reverse=True))
        walk = self._walk(questions.WALK_FAILED if state is State.FAILED else questions.WALK)
        return (seen.id for seen in walk if state in (None, seen.state) and task in (None, seen.task))

    def _records(self, ids: Sequence[str]) -> list[Record]:
        try:
            return self._with_ids(ids)
        except TooLong:
            if len(ids) == 1:
                raise
            half = len(ids) // 2
            return self._records(ids[:half]) + self._records(ids[half:])

    # The whole

    def schema(self) -> int:
        return int(self._rows(questions.SCHEMA)[0][0])

    def now(self) -> float:
        return time.time()

    def strangers(self) -> tuple[list[str], list[str]]:
        """What of the ledger's own tables and indexes is missing or changed, and the triggers and views.

        Tables of others may share the file.
        """
        found = set(self._rows(questions.MADE))
        ours = file.made()
        missing = [name for _, name, _, _ in sorted(ours - found)]
        acting = [
            f"{kind} {name} on {table}" if kind == "trigger" else f"{kind} {name}"
            for kind, name, table, _ in sorted(found - ours)
            if kind in ("trigger", "view")
        ]
        return missing, acting

    def workers(self) -> list[Worker]:
        rows = self._rows(questions.WORKERS)
        living = Turns.living(lock_file(self.path), [row[0] for row in rows])
        return [Worker._make((*row, row[0] in living)) for row in rows]

    def damage(self) -> list[str]:
        """What SQLite finds wrong with the file. Raises TooLong after 30 s."""
        found = [line for (line,) in self._asked(questions.CHECK, (), within=LONGEST_CHECK)]
        return [] if found == ["ok"] else found

    def _rows(self, statement: str, *parameters: object, **named: object) -> list[tuple[Any, ...]]:
        return self._asked(statement, named or parameters, within=LONGEST_READ)

    def _asked(
        self, statement: str, parameters: tuple[object, ...] | dict[str, object], *, within: float
    ) -> list[tuple[Any, ...]]:
        try:
            return self._brief.rows(statement, parameters, within=within)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                raise TooLong("the ledger is too large, or its disk too slow, to answer that") from error
            raise LedgerUnavailable(f"the ledger {self.path} cannot be read: {error}") from error
        except sqlite3.DatabaseError as error:
            raise LedgerUnusable(f"the ledger {self.path} is damaged: {error}") from error


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
