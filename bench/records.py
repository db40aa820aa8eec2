"""What a ledger file holds, read and filled by SQL of its own: the ledger's code does not check itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from bench.errors import BenchError

TERMINAL = {"succeeded", "failed", "cancelled"}


def states(ledger: Path) -> dict[str, int]:
    """How many records are in each state."""
    with _open(ledger) as db:
        return dict(db.execute("SELECT state, count(*) FROM records GROUP BY state"))


def live(ledger: Path) -> int:
    return sum(count for state, count in states(ledger).items() if state not in TERMINAL)


def all_succeeded(ledger: Path, expected: int) -> None:
    """Every record that a run has made ended well, and none is missing or over."""
    found = states(ledger)
    if found != ({"succeeded": expected} if expected else {}):
        raise BenchError(f"the ledger holds {found}, not {expected} succeeded records")


def span(ledger: Path) -> float:
    """Seconds from the first claim to the last settlement, on the ledger's clock."""
    with _open(ledger) as db:
        first, last = db.execute("SELECT min(started_at), max(finished_at) FROM records").fetchone()
    return float(last - first)


def only_record(ledger: Path) -> str:
    with _open(ledger) as db:
        ids = [id for (id,) in db.execute("SELECT id FROM records")]
    if len(ids) != 1:
        raise BenchError(f"expected one record to copy, found {len(ids)}")
    return str(ids[0])


def copies(ledger: Path, template: str, count: int, *, due_in: float) -> None:
    """Add `count` copies of a queued record. The first is due in `due_in` seconds, each next one 1 us later.

    Ids are made as the library makes them, sorted by time, so that the file looks as if it had filled up by
    itself. Only for a ledger that nobody has open.
    """
    with _open(ledger) as db:
        columns = [name for _, name, *_ in db.execute("PRAGMA table_info(records)")]
        own = {
            "id": "printf('%014x', CAST(created_at * 1000000 AS INTEGER) + (:first + n) * 62)"
            " || lower(hex(randomblob(11)))",
            "run_at": "created_at + :due_in + n * 1e-6",
        }
        values = ", ".join(own.get(column, column) for column in columns)
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -200000")
        (already,) = db.execute("SELECT count(*) FROM records").fetchone()
        with db:
            db.execute(
                "WITH RECURSIVE numbers (n) AS "
                "(SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count) "
                f"INSERT INTO records ({', '.join(columns)}) SELECT {values} FROM records, numbers "
                "WHERE records.id = :template AND records.state = 'queued' ORDER BY n",
                {"count": count, "template": template, "due_in": due_in, "first": already},
            )
        (now,) = db.execute("SELECT count(*) FROM records").fetchone()
        if now - already != count:
            raise BenchError(f"{now - already} copies were made, not {count}: is the template still queued?")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def _open(ledger: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(ledger, timeout=10)) as db:
        yield db
