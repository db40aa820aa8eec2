"""The clock of the ledgers in a test."""

from datetime import UTC, datetime, timedelta

from segundo.testing.session import Session


class LedgerClock:
    """The clock of every ledger in this test: the machine's, and by how much the test has moved it.

    Delays, `run_at`, the pauses between attempts, and retention go by it. What takes its time while it runs
    does not: the timeout of an attempt, `asyncio.sleep`.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def move(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Let time pass at once. What becomes due is run by the next request, or by `tasks.drain()`; with
        `real_ledger` by itself."""
        self._session.move(
            timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
        )

    def now(self) -> datetime:
        """What time it is for the ledgers."""
        return datetime.fromtimestamp(self._session.now(), UTC)
