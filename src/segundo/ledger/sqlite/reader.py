"""The one thread that reads: short looks at the file, beside the writer and never on an event loop."""

import json
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from segundo.errors import LedgerUnavailable
from segundo.ledger.sqlite import file
from segundo.ledger.sqlite import statements as sql
from segundo.ledger.transaction import to_records
from segundo.record import Record, State

LONGEST_READ = 0.1  # seconds; a longer read would keep the WAL from being checkpointed, and it would grow
STEPS = 1000  # SQLite operations between two looks at the clock


class Reader:
    """Answers from one read-only connection. Its methods are called in `thread`."""

    def __init__(self, path: Path) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="segundo-reader")
        self._deadline = float("inf")
        self._connection = file.read_only(path)
        self._connection.set_progress_handler(self._too_long, STEPS)
        self._hold()

    def close(self) -> None:
        self.thread.shutdown(wait=True)
        self._connection.close()

    def _hold(self) -> None:
        """Open the file for good: the WAL beside it lives, and stays the same, while anybody has it open."""
        try:
            self._connection.execute("PRAGMA data_version").fetchone()
        except BaseException:
            self._connection.close()
            raise

    def select(
        self, *, ids: Sequence[str] | None, state: State | None, limit: int, before: str | None
    ) -> Sequence[Record]:
        if ids is not None:
            return self._records(sql.SELECT_IDS, (json.dumps(list(ids)),))
        return self._records(sql.SELECT, {"state": state, "limit": limit, "before": before})

    def waits_for(self, ids: Sequence[str]) -> dict[str, list[str]]:
        waiting: dict[str, list[str]] = {}
        for after, before in self._rows(sql.WAITS_FOR, (json.dumps(list(ids)),)):
            waiting.setdefault(after, []).append(before)
        return waiting

    def glance(self, ids: Sequence[str]) -> Sequence[tuple[object, ...]]:
        return self._rows(sql.GLANCE, (json.dumps(list(ids)),))

    def next_due(self, queues: Sequence[str] | None, but: Sequence[str]) -> float | None:
        names = self._queues() if queues is None else queues
        dues = [self._rows(sql.NEXT_DUE, {"queue": queue})[0][0] for queue in names if queue not in but]
        return min((due for due in dues if due is not None), default=None)

    def _queues(self) -> list[str]:
        return [
            queue for statement in (sql.QUEUES, sql.SUSPECT_QUEUES) for (queue,) in self._rows(statement, ())
        ]

    def _records(self, statement: str, parameters: tuple[object, ...] | dict[str, object]) -> list[Record]:
        return to_records(self._rows(statement, parameters))

    def _rows(
        self, statement: str, parameters: tuple[object, ...] | dict[str, object]
    ) -> list[tuple[Any, ...]]:
        self._deadline = time.monotonic() + LONGEST_READ
        try:
            return self._connection.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise LedgerUnavailable(f"the ledger could not be read: {error}") from error
        finally:
            self._deadline = float("inf")

    def _too_long(self) -> bool:
        return time.monotonic() > self._deadline
