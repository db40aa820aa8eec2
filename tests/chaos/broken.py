"""The library broken on purpose, one promise at a time, so that the checker is seen to catch each."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from segundo.executors.celery import relay
from segundo.executors.celery.by_message import ByMessage
from segundo.ledger.postgres import exchange
from segundo.ledger.postgres import statements as sql
from segundo.ledger.postgres.transaction import ServerTransaction
from segundo.ledger.settling import TakeBeat
from segundo.record import Record
from tests.chaos.traffic import Mix
from tests.soak.broken import instead, put
from tests.soak.checker import Rule


def no_claim() -> None:
    """A worker runs what a message names, and does not ask whether it may."""

    def only_look(self: Any, id: str) -> Record | None:
        looking = asyncio.run_coroutine_threadsafe(self._ledger.select(ids=[id]), self._loop)
        return next((record.claimed(self._owner, record.run_at) for record in looking.result()), None)

    put(ByMessage, "_claim_until_answered", only_look)


def no_fence() -> None:
    """Who was frozen past its lease hears nothing of it, and settles what another has claimed since."""
    beat = TakeBeat.apply
    put(TakeBeat, "apply", lambda self, tx: beat(self, tx)._replace(lost=()))
    put(sql, "SUCCEED", instead(sql.SUCCEED, "records.claim = mine.value::int AND", ""))
    put(sql, "SETTLE", instead(sql.SETTLE, "AND claim = %(claim)s", ""))
    put(exchange, "EXCHANGE", instead(exchange.EXCHANGE, "AND claim = ($1 ->> id)::int", ""))


def the_living_are_robbed() -> None:
    """Processes are taken for dead soon after they have renewed their leases."""
    soon = "clock_timestamp() + interval '5.5 seconds'"  # a lease is 6 s long
    put(sql, "DEAD_WORKERS", instead(sql.DEAD_WORKERS, "clock_timestamp()", soon))


def nobody_takes_over() -> None:
    """What a killed process had stays in its hands."""
    put(ServerTransaction, "dead_workers", lambda self: [])


def marked_is_published() -> None:
    """What is marked as published counts as that for ever, whatever its broker has forgotten."""

    def forget(self: Any) -> None:
        self._run = None

    put(relay.Relay, "_lose", forget)
    put(relay, "LEASE", 1e6)


@dataclass(frozen=True)
class Way:
    """One way to break the library, the blows that show it, and the rules of which one must be broken."""

    break_it: Callable[[], None]
    breaks: set[Rule]
    blows: tuple[str, ...]
    weather: dict[str, Any] = field(default_factory=dict)


# What is damaged may be what keeps records from ending, so nothing waits long for that.
CALM: dict[str, Any] = {"tasks": 300, "drain": 8.0, "limit": 90.0, "rate": 4.0}
IDLE: dict[str, Any] = {"clients": 3, "rate": 0.5}  # there is a free slot for whatever comes
TIME: dict[str, Any] = {"drain": 15.0}  # enough, without a break, for what was killed, and for the rest
WAYS = {
    "no claim": Way(no_claim, {Rule.OVERLAP, Rule.STARTED_TWICE}, ("echo",), CALM),
    "no fence": Way(
        no_fence,
        {Rule.NOT_ITS_OWN},
        ("freeze a worker",),
        # What is frozen has ended by its own clock when it goes on, and runs elsewhere by then.
        {**CALM, **IDLE, "tasks": 60, "rounds": 4, "mix": Mix(long=0.2, lasts=(6.5, 8.0))},
    ),
    "the living are robbed": Way(the_living_are_robbed, {Rule.OVERLAP}, (), {**CALM, "mix": Mix(slow=0.3)}),
    "nobody takes over": Way(nobody_takes_over, {Rule.UNFINISHED}, ("kill a worker",), {**CALM, **TIME}),
    "marked is published": Way(
        marked_is_published, {Rule.UNFINISHED}, ("kill the broker",), {**CALM, **TIME, "limit": 20.0}
    ),
}


def install(name: str | None) -> None:
    """Break this process's library in the way that `name` says; with None or "", leave it whole."""
    if name:
        WAYS[name].break_it()
