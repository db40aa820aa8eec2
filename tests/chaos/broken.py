"""The library broken on purpose, one promise at a time, so that the checker is seen to catch each."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from segundo.executors.celery.by_message import ByMessage
from segundo.record import Record
from tests.soak.broken import put
from tests.soak.checker import Rule


def no_claim() -> None:
    """A worker runs what a message names, and does not ask whether it may."""

    def only_look(self: Any, id: str) -> Record | None:
        looking = asyncio.run_coroutine_threadsafe(self._ledger.select(ids=[id]), self._loop)
        return next((record.claimed(self._owner, record.run_at) for record in looking.result()), None)

    put(ByMessage, "_claim_until_answered", only_look)


@dataclass(frozen=True)
class Way:
    """One way to break the library, the blows that show it, and the rules of which one must be broken."""

    break_it: Callable[[], None]
    breaks: set[Rule]
    blows: tuple[str, ...]
    weather: dict[str, Any] = field(default_factory=dict)


# What is damaged may be what keeps records from ending, so nothing waits long for that.
CALM: dict[str, Any] = {"tasks": 300, "drain": 8.0, "limit": 90.0, "rate": 4.0}
WAYS = {
    "no claim": Way(no_claim, {Rule.OVERLAP, Rule.STARTED_TWICE}, ("echo",), CALM),
}


def install(name: str | None) -> None:
    """Break this process's library in the way that `name` says; with None or "", leave it whole."""
    if name:
        WAYS[name].break_it()
