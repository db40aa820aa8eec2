"""The library broken on purpose, one promise at a time, so that the checker is seen to catch each."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from segundo.executors.celery import relay
from segundo.executors.celery.by_message import ByMessage
from segundo.executors.celery.relay import Relay
from segundo.ledger.postgres import statements as sql
from segundo.record import Record
from tests.soak.broken import instead, put
from tests.soak.checker import Rule


def no_claim() -> None:
    """A worker runs what a message names, and does not ask whether it may."""

    def only_look(self: Any, id: str) -> Record | None:
        looking = asyncio.run_coroutine_threadsafe(self._ledger.select(ids=[id]), self._loop)
        return next((record.claimed(self._owner, record.run_at) for record in looking.result()), None)

    put(ByMessage, "_claim_until_answered", only_look)


def no_fence() -> None:
    """Who settles is believed, whatever claim it held."""
    put(sql, "SUCCEED", instead(sql.SUCCEED, "AND records.claim = mine.value::int", ""))
    put(sql, "SETTLE", instead(sql.SETTLE, "AND claim = %(claim)s", ""))


def no_lease() -> None:
    """The living are taken for dead."""
    put(sql, "DEAD_WORKERS", instead(sql.DEAD_WORKERS, "lease_until < clock_timestamp()", "true"))


def no_second_message() -> None:
    """What was handed to the broker is believed to be there for ever."""
    put(Relay, "_lose", lambda self: setattr(self, "_run", None))
    put(relay, "LEASE", 3600.0)


def marked_before_it_is_sent() -> None:
    """The relay goes on as if the broker had taken what it was not told to have."""
    send = Relay._send

    async def send_in_vain(self: Any, records: Sequence[Record]) -> None:
        try:
            await send(self, records[1:])
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                raise
            self._doubt = None

    put(Relay, "_send", send_in_vain)
    put(relay, "LEASE", 3600.0)


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
    "no fence": Way(no_fence, {Rule.NOT_ITS_OWN}, ("freeze a worker",), CALM),
    "no lease": Way(no_lease, {Rule.OVERLAP, Rule.STARTED_TWICE, Rule.UNEARNED}, ("kill a worker",), CALM),
    "no second message": Way(no_second_message, {Rule.UNFINISHED}, ("kill the broker",), CALM),
    "marked before it is sent": Way(marked_before_it_is_sent, {Rule.UNFINISHED}, (), CALM),
}


def install(name: str | None) -> None:
    """Break this process's library in the way that `name` says; with None or "", leave it whole."""
    if name:
        WAYS[name].break_it()
