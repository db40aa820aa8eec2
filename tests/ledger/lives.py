"""What can happen in the life of a ledger, as rules from which Hypothesis draws."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from segundo.errors import UnknownRecord
from segundo.ledger import Ledger
from segundo.record import LIVE, TERMINAL, State
from tests.ledger.agreement import agree
from tests.ledger.deeds import FOR_LATER, QUEUES, TOGETHER, Deed, Deeds
from tests.ledger.machine import Machine
from tests.support import wait_until

SEEDS = st.integers(0, 2**32 - 1)  # of the chance that one step is left to

# What happens all day, as often as it happens.
USUAL = [
    *["record"] * 7,
    *["claim", "settle"] * 6,
    *["together", "release", "start", "publish"] * 3,
    *["beat", "cancel", "die_with_full_hands", "rescue", "move_the_clock"] * 2,
    *["forget", "progress", "prune", "prune_a_few", "record_again", "give_up_a_request", "leave", "die"],
]


def there_is(*states: State) -> Callable[[Any], bool]:
    return lambda machine: any(record.state in states for record in machine.model.records.values())


def verb(deed: Callable[[Deeds], Deed], *states: State) -> Any:
    """The rule that makes one deed by itself, where any record is in one of these states."""

    def act(self: Any, seed: int) -> None:
        self.draw(seed, deed)

    act.__name__ = deed.__name__  # the rule's, in what Hypothesis prints
    made = rule(seed=SEEDS)(act)
    return precondition(there_is(*states))(made) if states else made


class Lives(Machine):
    """One rule for each verb, one for several at once, and those for processes and for time."""

    record = verb(Deeds.record)
    record_again = verb(Deeds.record_again)
    release = verb(Deeds.release, State.WAITING)
    start = verb(Deeds.start, State.WAITING)
    forget = verb(Deeds.forget, State.WAITING)
    claim = verb(Deeds.claim, State.QUEUED)
    settle = verb(Deeds.settle, State.RUNNING)
    progress = verb(Deeds.progress, State.RUNNING)
    beat = verb(Deeds.beat, State.RUNNING)
    publish = verb(Deeds.publish, State.QUEUED)
    cancel = verb(Deeds.cancel, *LIVE)
    prune = verb(Deeds.prune, *TERMINAL)
    prune_a_few = verb(Deeds.prune_a_few, *TERMINAL)
    rescue = verb(Deeds.rescue)

    def draw(self, seed: int, *deeds: Callable[[Deeds], Deed]) -> None:
        chance = Random(seed)
        drawn = self.deeds(chance)
        self.act(chance, *(deed(drawn) for deed in deeds))

    @rule(seed=SEEDS)
    def together(self, seed: int) -> None:
        chance = Random(seed)
        self.draw(seed, *(chance.choice(TOGETHER) for _ in range(chance.choice([2, 2, 3]))))

    @initialize(seed=SEEDS)
    def live_as_usual(self, seed: int) -> None:
        """So that there is always much that something can happen to."""
        self.lives = [self.do(self.new_life()) for _ in range(2)]
        self.go_on_as_usual(seed)

    @rule(seed=SEEDS)
    def go_on_as_usual(self, seed: int) -> None:
        chance = Random(seed)
        for _ in range(chance.randint(30, 60)):
            getattr(self, chance.choice(USUAL))(chance.getrandbits(32))

    @rule(seed=SEEDS)
    def give_up_a_request(self, seed: int) -> None:
        """It is cancelled while it is recorded, or when that is done and it has not learnt of it yet."""
        chance = Random(seed)
        ledger, deed = chance.choice(self.lives).ledger, self.deeds(chance).record()
        self.do(self.give_up(ledger, deed, turns=chance.randint(0, 2)))
        self.model.compare(*self.do(self.look_at(ledger)))

    async def give_up(self, ledger: Ledger, deed: Deed, *, turns: int) -> None:
        request = asyncio.ensure_future(ledger.record(**deed.args))
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns == 2 and self.can_be_recorded(
            deed
        ):  # it is posted, and while we do not wait it learns nothing
            wait_until(lambda: deed.args["calls"][-1].id in self.store.records(), every=0.001)
        request.cancel()
        (answer,) = await asyncio.gather(request, return_exceptions=True)
        await ledger.release("", [])  # the next transaction: it takes back what was refused
        if not isinstance(answer, asyncio.CancelledError):  # it had learnt of it
            self.model.record(answer, **deed.args)

    def can_be_recorded(self, deed: Deed) -> bool:
        try:
            model = self.model.copy()
            for call in deed.args["calls"]:
                model.store("record", call, deed.args["owner"])
        except UnknownRecord:
            return False
        return True

    # Processes

    @rule(seed=SEEDS)
    def die_with_full_hands(self, seed: int) -> None:
        """It takes what there is and dies of it, and another takes over."""
        owner = self.lives[seed % 2].owners[0]
        self.act(Random(seed), Deed("claim", {"owner": owner, "limit": 4}))
        self.die(seed)
        self.rescue(seed)

    @rule(seed=SEEDS)
    def die(self, seed: int) -> None:
        """Killed; perhaps after it said that it stops. Another takes its place."""
        life, politely = self.lives.pop(seed % 2), seed % 3 == 0
        for owner in life.owners:
            if politely:
                self.do(life.ledger.leave(owner))
            self.lay_down(owner, politely or self.model.processes[owner].stopping)
        self.do(self.store.let_die(life.ledger))
        self.lives.append(self.do(self.new_life()))

    def lay_down(self, owner: str, stopping: bool) -> None:
        held = any(record.owner == owner for record in self.model.records.values())
        if stopping and not held:
            del self.model.processes[owner]  # it left nothing, so nobody needs to take over
        else:
            self.model.processes[owner] = replace(self.model.processes[owner], alive=False, stopping=stopping)

    @rule(seed=SEEDS)
    def leave(self, seed: int) -> None:
        """It says that it stops, and lives on: nothing is taken from it yet."""
        life = self.lives[seed % 2]
        owner = life.owners[seed // 2 % len(life.owners)]
        self.do(life.ledger.leave(owner))
        self.model.processes[owner] = replace(self.model.processes[owner], stopping=True)

    @precondition(lambda self: sum(len(life.owners) for life in self.lives) < 5)
    @rule(seed=SEEDS)
    def join_once_more(self, seed: int) -> None:
        self.do(self.join(self.lives[seed % 2]))

    # Time, and looks

    @rule(seed=SEEDS)
    def move_the_clock(self, seed: int) -> None:
        self.model.now = self.clock.move(Random(seed).choice([0.5, 1.0, FOR_LATER, 20.0, -1.0]))

    @rule(seed=SEEDS)
    def ask_what_is_due(self, seed: int) -> None:
        queues = Random(seed).choice(QUEUES)
        queued = [
            record.run_at
            for record in self.model.records.values()
            if record.state is State.QUEUED and (queues is None or record.queue in queues)
        ]
        expected = max(0.0, min(queued) - self.model.now) if queued else None
        agree(self.do(self.lives[seed % 2].ledger.next_due(queues)), expected, "when the next is due")

    @rule(seed=SEEDS)
    def select(self, seed: int) -> None:
        chance = Random(seed)
        state, limit = chance.choice([None, *sorted(State)]), chance.randint(0, 5)
        before = self.deeds(chance).some(*LIVE) if chance.random() < 0.5 else None
        newest = sorted(self.model.records.values(), key=lambda record: record.id, reverse=True)
        fitting = [r for r in newest if state in (None, r.state) and (before is None or r.id < before)]
        found = self.do(chance.choice(self.lives).ledger.select(state=state, limit=limit, before=before))
        agree(found, fitting[:limit], "what is selected")
