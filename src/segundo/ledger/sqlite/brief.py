"""Reads that end in time: a long one would keep the WAL from being merged into the file, and it grows."""

import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any

LONGEST_READ = 0.1  # seconds
STEPS = 1000  # SQLite operations between two looks at the clock


class Brief:
    """The reads of one connection, which is to be used in no other way."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._deadline = float("inf")
        connection.set_progress_handler(self._is_too_long, STEPS)

    def rows(
        self,
        statement: str,
        parameters: Sequence[object] | Mapping[str, object] = (),
        *,
        within: float = LONGEST_READ,
    ) -> list[tuple[Any, ...]]:
        """All that a statement finds. Raises OperationalError (SQLITE_INTERRUPT) after `within` seconds."""
        self._deadline = time.monotonic() + within
        try:
            return self._connection.execute(statement, parameters).fetchall()
        finally:
            self._deadline = float("inf")

    def _is_too_long(self) -> bool:
        return time.monotonic() > self._deadline
