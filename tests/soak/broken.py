"""The library broken on purpose, one promise at a time, so that the checker is seen to catch each.

Every way reaches into the real parts and takes out one thing that a promise rests on. A storm in its own
weather then has to break the rules that are named with it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from segundo import runtime
from segundo.ledger import changes, refused, workers
from segundo.ledger.sqlite import statements as sql
from segundo.ledger.sqlite.turns import Turns
from segundo.request import Phase, RequestTasks
from tests.soak.checker import Rule

OFTEN = 0.2  # seconds


def no_fence() -> None:
    """The living are robbed of what they run, and whoever ends an attempt settles it, whatever its claim."""
    bury = Turns.bury

    def bury_anybody(self: Any, number: int) -> bool:
        bury(self, number)
        return number not in self._mine

    put(Turns, "bury", bury_anybody)
    put(sql, "BURY", f"{sql.BURY} AND 0")  # and again and again
    put(sql, "SUCCEED", instead(sql.SUCCEED, "records.claim = mine.value AND", ""))
    put(sql, "SETTLE", instead(sql.SETTLE, "AND claim = :claim", ""))
    put(runtime, "RESCUE_EVERY", OFTEN)


def record_after_the_response() -> None:
    """The client is answered first, and its calls are recorded when there is time."""

    async def on_function_exit(self: Any, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self._phase = Phase.RECORDED
        else:
            self._drop()

    async def on_request_exit(self: Any, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._phase is not Phase.DROPPED:
            self._phase = Phase.RELEASED
            await asyncio.sleep(OFTEN)
            await self.flush()

    put(RequestTasks, "on_function_exit", on_function_exit)
    put(RequestTasks, "on_request_exit", on_request_exit)


def release_by_age() -> None:
    """What has waited for its request for a while is released, though the request's process lives."""
    release = instead(sql.RESCUE_WAITING, "owner = :owner", "owner IS NOT NULL AND created_at < :old")
    rescue = workers.Rescue.apply

    def apply(self: Any, tx: Any) -> Any:
        tx.freed = bool(tx.records(release, now=tx.now, old=tx.now - OFTEN))
        return rescue(self, tx)

    put(workers.Rescue, "apply", apply)
    put(runtime, "RESCUE_EVERY", OFTEN)


def plain_functions_again() -> None:
    """A plain function whose process died goes back to the queue, as a declared task does."""
    put(sql, "RESCUE_RUNNING", instead(sql.RESCUE_RUNNING, "crashes < crash_limit", "crashes < 9"))


def refused_calls_stay() -> None:
    """A request that is refused because the ledger was too slow leaves its records where they are."""
    put(changes.RecordCalls, "unwanted", property(lambda self: False, lambda self, value: None))
    put(refused.Forget, "apply", lambda self, tx: None)


def put(owner: object, name: str, part: object) -> None:
    assert hasattr(owner, name), f"{owner} has no {name} any more: break it anew"
    setattr(owner, name, part)


def instead(statement: str, part: str, other: str) -> str:
    assert part in statement, f"{part!r} is no longer in {statement}: break it anew"
    return statement.replace(part, other)


@dataclass(frozen=True)
class Way:
    """One way to break the library, the weather that shows it, and the rules that must then be broken."""

    break_it: Callable[[], None]
    breaks: set[Rule]
    weather: dict[str, Any]


LONG = (1.0, 2.0)  # seconds: enough of everything happens between two kills
# No more than it takes. What is damaged may be what keeps records from ending, so nothing waits for that.
CALM = {"stalls": 0.0, "deploys": 0.0, "drain": 3.0, "answers": 60}

WAYS = {
    "no fence": Way(
        no_fence,
        {Rule.OVERLAP},
        {**CALM, "kills": 2, "workers": 2, "between": LONG, "slow": 0.3},
    ),
    "record after the response": Way(
        record_after_the_response,
        {Rule.LOST},
        {**CALM, "kills": 2, "between": LONG},
    ),
    "release by age": Way(
        release_by_age,
        {Rule.EARLY},
        {**CALM, "kills": 1, "between": LONG},
    ),
    "plain functions again": Way(
        plain_functions_again,
        {Rule.STARTED_TWICE},
        {**CALM, "kills": 3, "between": LONG, "slow": 0.3},
    ),
    "refused calls stay": Way(
        refused_calls_stay,
        {Rule.REFUSED_RAN, Rule.REFUSED_RECORDED},
        # The write lock is held long enough to refuse; the kill comes when every outcome could be learnt.
        {**CALM, "kills": 1, "between": (4.0, 5.0), "stalls": 1.0, "frozen": 0.0, "stall": LONG},
    ),
}


def install(name: str | None) -> None:
    """Break this process's library in the way that `name` says; with None or "", leave it whole."""
    if name:
        WAYS[name].break_it()
