"""What clients ask of the app under chaos: requests with calls of every kind, drawn from a seed."""

from collections.abc import Iterator
from random import Random
from typing import Literal

from pydantic import BaseModel

from tests.soak.history import PlannedCall, Sent
from tests.soak.traffic import TRIES

Function = Literal["plain_def", "plain_async", "task_def", "task_async", "inline"]
Ending = Literal["returns", "raises"]

FUNCTIONS: dict[Function, int] = {  # and how often each is drawn
    "plain_def": 25,
    "plain_async": 20,
    "task_def": 25,
    "task_async": 27,
    "inline": 3,
}
CHILD = 100  # a child's place in its request's calls, counted from its parent's
KEYS = 8  # names of keys for each function: few, so that calls with the same one are live at once


class CallPlan(BaseModel):
    """One call: what is called, how long it takes, and how many of its attempts raise before one does not."""

    call: str
    function: Function
    seconds: float = 0.0
    raises: int = 0
    delay: float = 0.0
    queue: str = "default"
    priority: int = 5
    key: str | None = None
    after: int | None = None  # the place in its request of the call that it waits for
    child: str | None = None  # the call that its task adds
    steps: int = 0  # how often it says how far it is
    cancel: bool = False  # the client asks to cancel it at once


class RequestPlan(BaseModel):
    """One request: where it goes, the calls that it adds, and how it ends once they are added."""

    request: str
    endpoint: Literal["/async", "/def"]
    ending: Ending
    calls: list[CallPlan]

    def sent(self) -> Sent:
        calls = [planned for plan in self.calls for planned in self._planned(plan)]
        return Sent(
            request=self.request, calls=tuple(calls), accepts=200 if self.ending == "returns" else None
        )

    def _planned(self, plan: CallPlan) -> Iterator[PlannedCall]:
        if plan.function == "inline":
            yield PlannedCall(plan.call, "inline")
            return
        kind: Literal["plain", "task"] = "plain" if plan.function.startswith("plain") else "task"
        tries = 1 if kind == "plain" else TRIES
        yield PlannedCall(
            plan.call,
            kind,
            "fails" if plan.raises >= tries else "succeeds",
            after=None if plan.after is None else self.calls[plan.after].call,
            key=plan.key,
            cancel=plan.cancel,
            steps=plan.steps,
        )
        if plan.child is not None:
            yield PlannedCall(plan.child, "task", parent=plan.call)


class Mix(BaseModel):
    """What the calls of a storm are. Odds, of those that can; times in seconds."""

    slow: float = 0.05
    takes: tuple[float, float] = (0.1, 1.0)  # a slow one
    long: float = 0.003
    lasts: tuple[float, float] = (8.0, 10.0)  # a long one: longer than a lease
    raises: float = 0.1
    ends: float = 0.05  # … of requests, after their calls were added


def requests(name: str, chance: Random, mix: Mix) -> Iterator[RequestPlan]:
    """The requests of one client, without end."""
    number = 0
    while True:
        number += 1
        request = f"{name}.{number}"
        calls: list[CallPlan] = []
        for place in range(chance.choice((1, 1, 2, 2, 3, 5))):
            calls.append(_call(request, place, calls, chance, mix))
        yield RequestPlan(
            request=request,
            endpoint=chance.choice(("/async", "/def")),
            ending="raises" if chance.random() < mix.ends else "returns",
            calls=calls,
        )


def _call(request: str, place: int, before: list[CallPlan], chance: Random, mix: Mix) -> CallPlan:
    function = chance.choices(list(FUNCTIONS), list(FUNCTIONS.values()))[0]
    plan = CallPlan(call=f"{request}-{place}", function=function)
    if function == "inline":
        return plan
    if chance.random() < mix.long:
        plan.seconds = chance.uniform(*mix.lasts)
    elif chance.random() < mix.slow:
        plan.seconds = chance.uniform(*mix.takes)
    if chance.random() < mix.raises:
        plan.raises = chance.randint(1, TRIES)
    if function.startswith("plain"):
        return plan
    _declared(plan, place, before, chance)
    return plan


def _declared(plan: CallPlan, place: int, before: list[CallPlan], chance: Random) -> None:
    """What only declared tasks have."""
    request = plan.call.rpartition("-")[0]
    plan.queue = chance.choice(("default", "side"))
    plan.priority = chance.choice((5, 5, 5, 0, 9))
    plan.steps = chance.choice((0, 0, 3))
    if chance.random() < 0.15:
        plan.child = f"{request}-{place + CHILD}"
    if chance.random() < 0.08:
        plan.delay = chance.uniform(0.1, 3.0)
    if chance.random() < 0.05:
        plan.cancel = True
        plan.seconds = chance.choice((0.0, 0.3, 2.0))
    # Not behind what may turn out to be the same as another: then it would wait for that one.
    recorded = [
        place for place, other in enumerate(before) if other.function != "inline" and other.key is None
    ]
    if recorded and chance.random() < 0.15:
        plan.after = chance.choice(recorded)
    elif chance.random() < 0.08:
        plan.key = f"{plan.function}-{chance.randrange(KEYS)}"
