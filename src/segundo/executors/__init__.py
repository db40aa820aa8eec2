"""Who runs a queue's records. Every executor claims from the ledger and runs attempts by the one runner."""

from collections.abc import Sequence
from typing import Protocol

from segundo.record import Record


class Executor(Protocol):
    """Runs the records of its queues."""

    async def start(self) -> None:
        """Begin to claim. A second call does nothing."""

    async def stop(self, *, grace: float) -> None:
        """Claim no more, let what runs end within `grace` seconds, then put back what can be put back."""

    def wake(self, records: Sequence[Record]) -> None:
        """These records were just released here: look for work now."""
