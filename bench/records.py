"""What a ledger file holds, read by SQL of its own so that the ledger's code does not check itself."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from bench.errors import BenchError


def states(ledger: Path) -> dict[str, int]:
    """How many records are in each state."""
    with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as db:
        return dict(db.execute("SELECT state, count(*) FROM records GROUP BY state"))


def all_succeeded(ledger: Path, expected: int) -> None:
    """Every record that a run has made ended well, and none is missing or over."""
    found = states(ledger)
    if found != ({"succeeded": expected} if expected else {}):
        raise BenchError(f"the ledger holds {found}, not {expected} succeeded records")
