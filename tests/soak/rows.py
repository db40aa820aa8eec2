"""What the ledger's file says, read past the library as a stranger would: one row a record."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support import ledger_rows

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
CLOCKS_APART = 100_000_000  # nanoseconds: the ledger keeps wall time, the history monotonic time
CALL = re.compile(r"q\d+\.\d+-\d+")  # how a client names its calls

LIVE = "SELECT count(*) AS live FROM records WHERE finished_at IS NULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the checker needs of a record; `call` is its first argument, the tag that the client sent."""

    id: str
    call: str
    state: str
    reason: str | None = None
    claim: int = 0
    failures: int = 0
    crashes: int = 0
    attempts: int | None = 1
    crash_limit: int = 0
    finished: int | None = None  # on the history's clock, within CLOCKS_APART
    key: str | None = None
    same_as: str | None = None
    result: str | None = None
    progress: str | None = None

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL

    @classmethod
    def of(cls, columns: Mapping[str, Any], clocks: int) -> Self:
        """From a row of the ledger; `clocks` is what makes wall time, in nanoseconds, monotonic time."""
        named = CALL.search(columns["arguments"] or "")
        end = columns["finished_at"]
        kept = (
            *("id", "state", "reason", "claim", "failures", "crashes", "attempts", "crash_limit"),
            *("key", "same_as", "result", "progress"),
        )
        return cls(
            call=named.group() if named is not None else str(columns["arguments"]),
            finished=None if end is None else round(end * 1e9) + clocks,
            **{name: columns[name] for name in kept},
        )


def read_rows(ledger: Path) -> list[Row]:
    clocks = time.monotonic_ns() - time.time_ns()
    return [Row.of(columns, clocks) for columns in ledger_rows(ledger)]


def live_records(ledger: Path) -> int:
    return int(ledger_rows(ledger, LIVE)[0]["live"])


def damage(ledger: Path) -> str | None:
    """What SQLite finds wrong with the file; None if it is sound."""
    (first, *_) = ledger_rows(ledger, "PRAGMA integrity_check")
    return None if first["integrity_check"] == "ok" else str(first["integrity_check"])
