"""What clients ask of the app: requests of every ending with calls of every kind, drawn from a seed."""

from collections.abc import Iterator
from random import Random
from typing import Literal, TypeVar

from pydantic import BaseModel

from tests.soak.history import PlannedCall, Sent

T = TypeVar("T")

Function = Literal["plain_def", "plain_async", "task_def", "task_async", "inline"]
Endpoint = Literal["/async", "/def", "/invalid"]
Ending = Literal[
    "returns", "responds", "streams", "not found", "raises", "http error", "bad body", "no commit"
]

# The status of each ending that keeps its calls; the others drop them, as in FastAPI.
ACCEPTS: dict[Ending, int] = {"returns": 200, "responds": 200, "streams": 200, "not found": 404}
ENDINGS: dict[Ending, int] = {  # and how often each is drawn
    "returns": 60,
    "responds": 8,
    "streams": 8,
    "not found": 4,
    "raises": 5,
    "http error": 5,
    "bad body": 5,
    "no commit": 5,
}
FUNCTIONS: dict[Function, int] = {
    "plain_def": 25,
    "plain_async": 25,
    "task_def": 20,
    "task_async": 25,
    "inline": 5,
}
TRIES = 3  # what a declared task of the app is allowed


class CallPlan(BaseModel):
    """One call: what is called, how long it takes, and how many of its attempts raise before one does not."""

    call: str
    function: Function
    seconds: float = 0.0
    raises: int = 0
    delay: float = 0.0
    after: int | None = None  # the place in its request of the call that it waits for


class RequestPlan(BaseModel):
    """One request: where it goes, the calls that it adds, and how it ends once they are added."""

    request: str
    endpoint: Endpoint
    ending: Ending
    calls: list[CallPlan]

    def sent(self) -> Sent:
        kept = None if self.endpoint == "/invalid" else ACCEPTS.get(self.ending)
        return Sent(request=self.request, calls=tuple(map(self._planned, self.calls)), accepts=kept)

    def _planned(self, plan: CallPlan) -> PlannedCall:
        after = None if plan.after is None else self.calls[plan.after].call
        if plan.function == "inline":
            return PlannedCall(plan.call, "inline")
        if plan.function.startswith("plain"):
            return PlannedCall(plan.call, "plain", "fails" if plan.raises else "succeeds")
        return PlannedCall(plan.call, "task", "fails" if plan.raises >= TRIES else "succeeds", after)


def requests(name: str, chance: Random, *, slow: float) -> Iterator[RequestPlan]:
    """The requests of one client, without end, in which a part of the calls is slow."""
    number = 0
    while True:
        number += 1
        yield _request(f"{name}.{number}", chance, slow)


def _request(request: str, chance: Random, slow: float) -> RequestPlan:
    endpoint: Endpoint = chance.choices(("/async", "/def", "/invalid"), (60, 35, 5))[0]
    calls: list[CallPlan] = []
    for place in range(chance.choice((1, 1, 2, 2, 3, 5))):
        calls.append(_call(f"{request}-{place}", calls, chance, slow))
    return RequestPlan(request=request, endpoint=endpoint, ending=_drawn(ENDINGS, chance), calls=calls)


def _call(call: str, before: list[CallPlan], chance: Random, slow: float) -> CallPlan:
    plan = CallPlan(call=call, function=_drawn(FUNCTIONS, chance))
    if plan.function == "inline":
        return plan
    if chance.random() < slow:
        plan.seconds = chance.uniform(0.05, 0.5)
    if plan.function.startswith("plain"):
        plan.raises = int(chance.random() < 0.05)
        return plan
    plan.raises = chance.choices((0, 1, 2, TRIES), (80, 10, 5, 5))[0]
    if chance.random() < 0.1:
        plan.delay = chance.uniform(0.1, 2.0)
    recorded = [place for place, other in enumerate(before) if other.function != "inline"]
    if recorded and chance.random() < 0.15:
        plan.after = chance.choice(recorded)
    return plan


def _drawn(weights: dict[T, int], chance: Random) -> T:
    return chance.choices(list(weights), list(weights.values()))[0]
