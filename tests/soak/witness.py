"""What a call writes into the history of a storm while it runs: that its own code began, and how it ended."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from segundo import Retry, current
from tests.soak.history import Ended, Journal, Outcome, Started
from tests.soak.traffic import TRIES

AGAIN = Retry(attempts=TRIES, wait=lambda failures: 0.05 * (failures - 1), jitter=False)  # at once, then soon


class Stumble(Exception):
    """What a call, or an endpoint, raises that was told to."""


class Witness:
    """`me`: the process that this runs in; a pool forks it after this was made."""

    def __init__(self, journal: Journal, me: Callable[[], str]) -> None:
        self._journal = journal
        self._me = me
        self._runs = itertools.count()

    @contextmanager
    def attempt(self, call: str, raises: int = 0) -> Iterator[int]:
        """Of a record: gives the claim that it runs under, and raises in the first `raises` attempts."""
        context = current()
        with self._run(call, record=context.id, attempt=context.attempt, claim=context.claim):
            yield context.claim
            if context.attempt <= raises:
                raise Stumble(f"attempt {context.attempt} of {call}")

    @contextmanager
    def in_process(self, call: str) -> Iterator[None]:
        """Of a call that has no record."""
        with self._run(call):
            yield

    @contextmanager
    def _run(
        self, call: str, *, record: str | None = None, attempt: int | None = None, claim: int | None = None
    ) -> Iterator[None]:
        me = self._me()
        run = f"{me}/{next(self._runs)}"
        self._journal.append(
            Started(run=run, call=call, process=me, record=record, attempt=attempt, claim=claim)
        )
        outcome: Outcome = "raised"
        try:
            yield
            outcome = "ran"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._journal.append(Ended(run=run, outcome=outcome))
