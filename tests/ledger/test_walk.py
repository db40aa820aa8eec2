"""A random life of a ledger: whatever is done in whatever order, nothing happens that is not in the table."""

import random
from collections.abc import Awaitable, Callable

import anyio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from segundo.ledger import Ledger
from segundo.record import LIVE, TERMINAL, Call, Record, State
from tests.ledger.law import check_the_table
from tests.ledger.suite import Stage, Store, after, call, settlement

STEPS = st.lists(st.integers(0, 2**32 - 1), min_size=5, max_size=50)  # each the seed of one step


class Walk:
    """A stage, a second living process and now and then one that dies; one random step at a time."""

    def __init__(self, stage: Stage, other: Ledger) -> None:
        self.stage = stage
        self.other = other
        self.now = stage.records()
        self.verbs: dict[str, Callable[[random.Random], Awaitable[object]]] = {
            "record": self.record,
            "release": self.release,
            "start": self.start,
            "claim": self.claim,
            "settle": self.settle,
            "cancel": self.cancel,
            "progress": self.progress,
            "beat": self.beat,
            "rescue": self.rescue,
            "prune": self.prune,
            "forget": self.forget,
        }

    async def step(self, seed: int) -> None:
        chance = random.Random(seed)
        if chance.random() < 0.1:
            await self.leave_something_behind(chance)
        self.stage.clock.move(chance.choice([0, 0, 1, 20]))
        verb = chance.choice([*self.verbs, "record", "claim", "settle"])
        earlier = self.now
        await self.verbs[verb](chance)
        self.now = self.stage.records()
        check_the_table(earlier, self.now, verb)
        check_the_whole(self.now)

    def some(self, chance: random.Random, *states: State) -> Record | None:
        """A record, rather one in these states."""
        records = list(self.now.values())
        fitting = [record for record in records if record.state in states]
        chosen = fitting if fitting and chance.random() < 0.8 else records
        return chance.choice(chosen) if chosen else None

    def either(self, chance: random.Random) -> tuple[Ledger, str]:
        return chance.choice([(self.stage.ledger, self.stage.me), (self.other, "other")])

    async def record(self, chance: random.Random) -> None:
        ledger, owner = self.either(chance)
        await ledger.record(self.calls(chance), owner=owner)

    def calls(self, chance: random.Random) -> list[Call]:
        calls = list[Call]()
        for _ in range(chance.randint(1, 3)):
            before = [self.some(chance, *LIVE) for _ in range(chance.choice([0, 0, 1, 2]))]
            links = after(
                *{r.id for r in before if r and self.is_known(r)}, on_failure=chance.choice(["cancel", "run"])
            )
            calls.append(
                call(
                    after=links,
                    held=chance.random() < 0.5,
                    key=chance.choice([None, None, "a", "b"]),
                    attempts=chance.choice([1, 2, None]),
                    crash_limit=chance.choice([0, 1, 3]),
                    priority=chance.choice([1, 5, 9]),
                    delay=chance.choice([0, 0, 10]),
                    retention=chance.choice([None, 15]),
                )
            )
        return calls

    def is_known(self, record: Record) -> bool:
        """Who waits for a duplicate waits for what it is the same as, and that may be pruned."""
        return record.same_as is None or record.same_as in self.now

    async def release(self, chance: random.Random) -> None:
        ledger, owner = self.either(chance)
        record = self.some(chance, State.WAITING)
        await ledger.release(owner, [record.id] if record else [])

    async def start(self, chance: random.Random) -> None:
        ledger, owner = self.either(chance)
        records = [self.some(chance, State.WAITING) for _ in range(2)]
        wanted = list({record.id: record for record in records if record is not None}.values())
        started = await ledger.start(owner, wanted, limit=chance.randint(0, 2))
        stored = self.stage.records()
        assert [stored[record.id] for record in started] == started

    async def claim(self, chance: random.Random) -> None:
        ledger, owner = self.either(chance)
        await ledger.claim(owner, limit=chance.randint(1, 4), suspect=chance.random() < 0.5)

    async def settle(self, chance: random.Random) -> None:
        ledger, _ = self.either(chance)
        if record := self.some(chance, State.RUNNING):
            state = chance.choice([*TERMINAL_IN_ORDER, State.QUEUED, State.QUEUED])
            claim = record.claim - (chance.random() < 0.2)
            children = self.calls(chance) if chance.random() < 0.3 else []
            again = settlement(
                record,
                state,
                claim=claim,
                counted=chance.random() < 0.7,
                delay=5,
                children=tuple(children),
            )
            (settled,) = await ledger.settle([again])
            mine = record.state is State.RUNNING and claim == record.claim
            assert settled is mine
            recorded = {child.id for child in children} & self.stage.records().keys()
            assert len(recorded) == (len(children) if mine and state is State.SUCCEEDED else 0)

    async def cancel(self, chance: random.Random) -> None:
        if record := self.some(chance, *LIVE):
            await self.stage.ledger.cancel(record.id)

    async def progress(self, chance: random.Random) -> None:
        if record := self.some(chance, State.RUNNING):
            await self.stage.ledger.progress(record.id, record.claim, str(chance.random()))

    async def beat(self, chance: random.Random) -> None:
        ledger, owner = self.either(chance)
        mine = [r.id for r in self.now.values() if r.owner == owner and r.state is State.RUNNING]
        await ledger.beat(owner, running=[id for id in mine if chance.random() < 0.8])

    async def rescue(self, chance: random.Random) -> None:
        ledger, _ = self.either(chance)
        await ledger.rescue()

    async def prune(self, chance: random.Random) -> None:
        await self.stage.ledger.prune(older_than=chance.choice([None, None, 30]), limit=chance.randint(1, 5))

    async def forget(self, chance: random.Random) -> None:
        record = self.some(chance, State.WAITING)
        if record is not None and record.owner in (self.stage.me, "other"):
            await self.stage.forget(record, owner=record.owner)

    async def leave_something_behind(self, chance: random.Random) -> None:
        calls = [call(crash_limit=chance.choice([0, 1])) for _ in range(2)]
        run, stopping = chance.random() < 0.6, chance.random() < 0.3
        await self.stage.left_by_the_dead(*calls, run=run, stopping=stopping)
        self.now = self.stage.records()


TERMINAL_IN_ORDER = sorted(TERMINAL)


def check_the_whole(records: dict[str, Record]) -> None:
    """What holds of all records together, at every moment."""
    keys = [(r.task, r.key) for r in records.values() if r.key is not None and r.state in LIVE]
    assert len(keys) == len(set(keys)), "two live records have one key"
    for record in records.values():
        if record.state is State.RUNNING:
            assert record.owner is not None
        elif record.state is not State.WAITING:
            assert record.owner is None
        if record.state in (State.FAILED, State.CANCELLED) and record.claim == 0:
            assert record.reason is not None


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@example(
    steps=[511620209, 0, 0, 0, 0, 0, 4_294_967_294, 0, 0, 1651, 0]
)  # after a duplicate of what is pruned
@given(steps=STEPS)
def test_nothing_ever_happens_that_is_not_in_the_table(
    new_store: Callable[[], Store], steps: list[int]
) -> None:
    async def live() -> None:
        async with Stage.on(new_store()) as stage:
            walk = Walk(stage, await stage.another("other"))
            for seed in steps:
                await walk.step(seed)
            await run_to_the_end(stage)

    anyio.run(live)


async def run_to_the_end(stage: Stage) -> None:
    """Promise 3: when the requests are over and there is nobody else, every record comes to an end."""
    for ledger in stage.others:
        await stage.let_die(ledger)
    held = [record.id for record in stage.records().values() if record.owner == stage.me]
    await stage.ledger.rescue()
    await stage.ledger.release(stage.me, held)
    await stage.ledger.beat(stage.me, running=[])
    stage.clock.move(1000)
    while claimed := await stage.ledger.claim(stage.me, limit=10):
        await stage.ledger.settle([settlement(record) for record in claimed])
    assert [r for r in stage.records().values() if not r.state.terminal] == []
