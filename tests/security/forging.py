"""Rows that somebody writes into the file past the library, as exactly as SQLite lets them."""

import sqlite3
import time
from contextlib import closing
from itertools import count
from typing import Any

from tests.web.apps import LEDGER

OFFERED = "tests.web.tasks:note"
_numbers = count(1)


def forge(*, unchecked: bool = False, **columns: Any) -> str:
    """A row that is due at once, unless `columns` say otherwise; its id. Bytes are put where a text belongs.

    `unchecked`: the writer has turned the file's CHECKs off.
    """
    now = time.time()
    row = {
        "id": f"forged-{next(_numbers):06}",
        "task": OFFERED,
        "queue": "default",
        "priority": 5,
        "state": "queued",
        "crash_limit": 1,
        "format": 1,
        "arguments": '{"event": "forged"}',
        "created_at": now,
        "run_at": now,
        **columns,
    }
    insert("records", row, unchecked=unchecked)
    return str(row["id"])


def insert(table: str, row: dict[str, Any], *, unchecked: bool = False) -> None:
    values = ", ".join("CAST(? AS TEXT)" if isinstance(value, bytes) else "?" for value in row.values())
    with closing(sqlite3.connect(LEDGER, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA ignore_check_constraints = {int(unchecked)}")
        connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({values})", [*row.values()])


def alter(*statements: str) -> None:
    """What somebody does to the file with SQLite's own shell."""
    with closing(sqlite3.connect(LEDGER, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
