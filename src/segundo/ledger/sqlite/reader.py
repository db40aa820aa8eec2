"""The one thread that reads: short looks at the file, beside the writer."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from segundo.errors import LedgerUnavailable
from segundo.ledger.reading import Reader
from segundo.ledger.sqlite import file, statements
from segundo.ledger.sqlite.brief import Brief


class FileReader(Reader):
    """Answers from one read-only connection. `clock`: unix seconds, the ledger's."""

    sql: ClassVar[ModuleType] = statements

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        super().__init__(readers=1)
        self._clock = clock
        self._connection = file.read_only(path)
        self._brief = Brief(self._connection)
        self._hold()

    def close(self) -> None:
        self.threads.shutdown(wait=True)
        self._connection.close()

    def _now(self) -> float:
        return self._clock()

    def _hold(self) -> None:
        """Open the file for good: the WAL beside it lives, and stays the same, while anybody has it open."""
        try:
            self._connection.execute("PRAGMA data_version").fetchone()
        except BaseException:
            self._connection.close()
            raise

    def _rows(self, statement: str, *parameters: object, **named: object) -> list[tuple[Any, ...]]:
        try:
            return self._brief.rows(statement, named or parameters)
        except sqlite3.Error as error:
            raise LedgerUnavailable(f"the ledger could not be read: {error}") from error
