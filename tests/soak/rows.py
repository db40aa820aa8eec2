"""What the ledger's file says at the end of a storm: one row a record, read as a stranger would read it."""

from dataclasses import dataclass

CLOCKS_APART = 100_000_000  # nanoseconds: the ledger keeps wall time, the history monotonic time
TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


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

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL
