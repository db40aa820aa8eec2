"""A move from one ledger to another: all arrives as it was, and runs once, wherever it is broken off."""

import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest

from segundo.errors import LedgerMoved, NotAllowed
from segundo.ledger.moved import Batch, TakeIn, Welcome, Whole
from segundo.ledger.moving import Move
from segundo.ledger.written import WrittenLedger
from segundo.record import Record, State, Wipe
from tests.ledger.conftest import STORES, Make
from tests.ledger.suite import SQLiteStore, Stage, after, call, settlement, states
from tests.support import ledger_rows

KINDS = ("sqlite", "postgres")
PAIRS = [
    pytest.param((old, new), marks=[pytest.mark.postgres] * ("postgres" in (old, new)), id=f"{old}-{new}")
    for old in KINDS
    for new in KINDS
]


class Killed(BaseException):
    """The mover ends at a step, and does nothing more."""


class Places:
    """The ledger that records leave, and the one that they go to, which an app uses meanwhile."""

    def __init__(self, old: Stage, new: Stage) -> None:
        self.old = old
        self.new = new

    async def move(
        self, reached: Callable[[str, int], None] = lambda *_: None, *, ended: bool = False
    ) -> int:
        """As `segundo move` does, when all have left in good order."""
        ledgers = [written(stage) for stage in (self.old, self.new)]
        for ledger in ledgers:
            await ledger.open()
        move = Move(*ledgers, ended=ended, batch=2, reached=reached, stays=self._refuse)
        try:
            return await move.run()
        finally:
            for stage, ledger in zip((self.old, self.new), ledgers, strict=True):
                await stage.let_die(ledger)

    @staticmethod
    def _refuse(_: str) -> None:
        raise NotAllowed("somebody is alive there")

    async def empty(self) -> None:
        """All leave the old one."""
        await self.old.ledger.leave(self.old.me)
        await self.old.ledger.close()

    async def run_what_may_run(self, ended: Counter[str]) -> None:
        """An app on the new ledger that ends all that it can claim, and forgets it at once."""
        while claimed := await self.new.ledger.claim(self.new.me, limit=100):
            ended.update(record.id for record in claimed)
            await self.new.ledger.settle([settlement(record) for record in claimed])
        await self.new.ledger.prune(older_than=0)


def forge(stage: Stage, statement: str, *values: object) -> Path:
    """Change its file past the library; where that is."""
    store = stage.store
    assert isinstance(store, SQLiteStore)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute(statement, values)
    return store.path


def written(stage: Stage) -> WrittenLedger:
    ledger = stage.store.ledger(stage.clock)
    assert isinstance(ledger, WrittenLedger)
    return ledger


@pytest.fixture(params=PAIRS)
async def places(request: pytest.FixtureRequest) -> AsyncIterator[Places]:
    kinds: tuple[str, str] = request.param
    makers: dict[str, Make] = {kind: STORES[kind](request) for kind in dict.fromkeys(kinds)}
    async with AsyncExitStack() as stack:
        stages = [await stack.enter_async_context(Stage.on(makers[kind]())) for kind in kinds]
        yield Places(*stages)


async def one_of_each(stage: Stage) -> dict[str, Record]:
    """What has not ended, in all the ways in which that may be; and one that has."""
    first = await stage.queued()
    records = [
        first,
        await stage.queued(delay=3600, queue="emails", priority=9, attempts=None, retention=60.0),
        await stage.queued(key="a key", carried='{"tenant": 1}', timeout=5.0, wipe=Wipe.SECRET, attempts=4),
        await stage.crashed(times=2),
        await stage.queued(after=after(first.id, on_failure="run")),
        await stage.held(arguments='{"text": "ñ \\u0000 \\ud83d\\ude00"}'),
    ]
    tried = await stage.running(attempts=3, retry_of="another", format=1)
    again = settlement(tried, State.QUEUED, reason="ValueError", error='{"type": "ValueError"}', delay=30)
    assert await stage.ledger.settle([again]) == [True]
    await stage.ledger.release(stage.me, [record.id for record in records])
    await stage.ended()
    return {id: record for id, record in stage.records().items() if not record.state.terminal}


async def test_what_has_not_ended_arrives_as_it_was(places: Places) -> None:
    before = await one_of_each(places.old)
    await places.empty()
    assert await places.move() == len(before) == 7
    assert places.new.records() == before
    assert [record.state for record in places.old.records().values()] == [State.SUCCEEDED]


async def test_ended_records_move_if_they_are_to(places: Places) -> None:
    await one_of_each(places.old)
    before = places.old.records()
    await places.empty()
    assert await places.move(ended=True) == len(before) - 1
    assert places.new.records() == before
    assert places.old.records() == {}


STEPS = [
    *("shut", "welcomed", "copied", "copied 2", "whole", "decided", "let go", "let go 2", "arrived"),
    *("discarded", "discarded 2"),
]


def killed_at(point: str) -> Callable[[str, int], None]:
    seen: Counter[str] = Counter()
    step, number = (point[:-2], 2) if point.endswith(" 2") else (point, 1)

    def reached(name: str, _: int) -> None:
        seen[name] += 1
        if name == step and seen[name] == number:
            raise Killed

    return reached


@pytest.mark.parametrize("point", STEPS)
async def test_a_move_that_is_killed_at_any_step_is_finished_by_the_same_command(
    places: Places, point: str
) -> None:
    ended: Counter[str] = Counter()
    records = [await places.old.queued() for _ in range(4)]
    records.append(await places.old.queued(after=after(records[0].id, records[3].id)))
    await places.empty()
    with pytest.raises(Killed):
        await places.move(killed_at(point))
    with pytest.raises(LedgerMoved):
        await written_and_joined(places.old)
    await places.run_what_may_run(ended)
    await places.move()
    await places.run_what_may_run(ended)
    assert ended == Counter(record.id for record in records)
    assert places.old.records() == places.new.records() == {}


async def written_and_joined(stage: Stage) -> None:
    ledger = written(stage)
    await ledger.open()
    try:
        await ledger.join("an app")
    finally:
        await stage.let_die(ledger)


async def test_nothing_moves_while_somebody_is_alive_and_the_ledger_stays_open(places: Places) -> None:
    running = await places.old.running()
    with pytest.raises(NotAllowed, match="alive"):
        await places.move()
    await written_and_joined(places.old)
    assert places.old.now_is(running) == running
    assert places.new.records() == {}


async def test_what_the_dead_held_is_taken_over_and_moves(places: Places) -> None:
    (declared,) = await places.old.left_by_the_dead(call(crash_limit=3))
    (plain,) = await places.old.left_by_the_dead(call(crash_limit=0))
    (waiting,) = await places.old.left_by_the_dead(call(), run=False)
    await places.empty()
    assert await places.move() == 2
    assert places.new.records().keys() == {declared.id, waiting.id}
    assert places.new.now_is(declared).crashes == 1
    assert places.old.now_is(plain).reason == "WorkerLost"


async def test_two_do_not_move_the_same_records(places: Places) -> None:
    await places.old.queued()
    await places.empty()
    other = written(places.old)
    await other.open()
    await other.join("move:another", moving=True)
    with pytest.raises(NotAllowed, match="alive"):
        await places.move()
    await places.old.let_die(other)
    assert await places.move() == 1


async def test_a_move_to_one_place_is_not_finished_to_another(places: Places) -> None:
    await places.old.queued()
    await places.empty()
    with pytest.raises(Killed):
        await places.move(killed_at("copied"))
    elsewhere = Places(places.old, places.old)
    with pytest.raises(LedgerMoved, match="moving to"):
        await elsewhere.move()


async def test_a_ledger_whose_own_records_are_moving_takes_in_none(places: Places) -> None:
    await places.old.queued()
    await places.empty()
    with pytest.raises(Killed):
        await places.move(killed_at("shut"))
    await places.new.ledger.leave(places.new.me)
    await places.new.ledger.close()
    with pytest.raises(NotAllowed, match="its own records are moving"):
        await Places(places.new, places.old).move()


async def test_records_can_move_back_and_the_ledger_is_open_again(places: Places) -> None:
    record = await places.old.queued(key="one")
    await places.empty()
    await places.move()
    await places.new.ledger.leave(places.new.me)
    await places.new.ledger.close()
    assert await Places(places.new, places.old).move() == 1
    assert places.old.records() == {record.id: record}
    await written_and_joined(places.old)
    with pytest.raises(LedgerMoved, match="have moved"):
        await written_and_joined(places.new)


async def test_what_is_there_already_is_not_taken_for_the_same(places: Places) -> None:
    record = await places.old.queued()
    await places.new.queued(id=record.id)
    await places.empty()
    with pytest.raises(NotAllowed, match="is there already"):
        await places.move()


async def test_a_live_record_with_the_same_key_is_named_and_the_move_goes_on_when_it_has_ended(
    places: Places,
) -> None:
    record = await places.old.queued(key="one")
    there = await places.new.queued(key="one")
    await places.empty()
    with pytest.raises(NotAllowed, match=there.id):
        await places.move()
    await places.new.ledger.cancel(there.id)
    assert await places.move() == 1
    assert places.new.now_is(record).state is State.QUEUED


FORGED = [
    *(("claim", 2**40), ("failures", -(2**62)), ("attempts", 2**31), ("crash_limit", 2**63 - 1)),
    *(("reason", "x\0"), ("arguments", '{"x": "\0"}'), ("error", "\0")),
    *(("run_at", float("inf")), ("created_at", float("-inf")), ("timeout", float("inf"))),
    *(("key", "k" * 9000), ("task", "t" * 9000), ("queue", "q" * 300), ("id", "~" * 9000)),
    ("published_until", float("inf")),  # which stays behind
]


@pytest.mark.parametrize("places", [("sqlite", "postgres")], indirect=True)
@pytest.mark.parametrize(("column", "value"), FORGED)
@pytest.mark.postgres
async def test_a_row_that_a_server_cannot_hold_is_named_and_nothing_has_moved(
    places: Places, column: str, value: object
) -> None:
    records = [await places.old.queued() for _ in range(3)]
    await places.empty()
    path = forge(places.old, f"UPDATE records SET {column} = ? WHERE id = ?", value, records[-1].id)
    before = ledger_rows(path)
    if column != "published_until":
        with pytest.raises(NotAllowed, match=f"cannot be stored there: its {column} .*Nothing has moved"):
            await places.move()
        assert (ledger_rows(path), places.new.records()) == (before, {})
        await written_and_joined(places.old)  # it is open
        forge(places.old, "DELETE FROM records WHERE id NOT IN (?, ?)", *(one.id for one in records[:2]))
    await places.move()
    assert {record.id for record in records[:2]} <= places.new.records().keys()
    assert places.old.records() == {}


@pytest.mark.parametrize("places", [("sqlite", "sqlite")], indirect=True)
async def test_an_id_that_is_not_found_again_is_named_and_nothing_has_moved(places: Places) -> None:
    record = await places.old.queued()
    await places.empty()
    forge(places.old, "UPDATE records SET id = ? WHERE id = ?", "~\0", record.id)
    with pytest.raises(NotAllowed, match=r"'~\\x00' is the id of no Segundo: delete its row"):
        await places.move()
    await written_and_joined(places.old)  # it is open


@pytest.mark.parametrize("places", [("sqlite", "postgres")], indirect=True)
@pytest.mark.postgres
async def test_what_a_record_waits_for_that_a_server_cannot_hold_is_named(places: Places) -> None:
    first = await places.old.queued()
    second = await places.old.queued(after=after(first.id))
    await places.empty()
    forge(places.old, "INSERT INTO links VALUES (?, ?, 'run')", "\0", second.id)
    with pytest.raises(NotAllowed, match=f"what .{second.id}. waits for cannot be stored there"):
        await places.move()
    assert places.new.records() == {}


async def test_what_is_held_has_its_key_can_be_cancelled_and_is_nobodys_to_take_over(places: Places) -> None:
    record, other = await places.old.queued(key="one"), await places.old.queued()
    await places.empty()
    with pytest.raises(Killed):
        await places.move(killed_at("whole"))
    assert await places.new.ledger.rescue() == []
    assert await places.new.ledger.claim(places.new.me, limit=10) == []
    twin = await places.new.queued(key="one")
    assert twin.same_as == record.id
    await places.new.ledger.cancel(other.id)
    assert await places.move() == 1
    assert states([places.new.now_is(one) for one in (record, other)]) == [State.QUEUED, State.CANCELLED]


async def test_what_waits_is_let_go_also_when_the_one_before_has_ended_meanwhile(places: Places) -> None:
    first = await places.old.queued()
    await places.old.queued()
    happy = await places.old.queued(after=after(first.id, on_failure="run"))
    doomed = await places.old.queued(after=after(first.id))
    await places.empty()
    with pytest.raises(Killed):
        await places.move(killed_at("let go"))  # the first two; the others are held
    claimed = await places.new.claim(first)
    await places.new.ledger.settle([settlement(claimed, State.FAILED, reason="ValueError")])
    await places.move()
    assert states([places.new.now_is(one) for one in (happy, doomed)]) == [State.QUEUED, State.CANCELLED]


async def test_a_mover_that_was_frozen_brings_nothing_when_another_has_finished(places: Places) -> None:
    new = places.new.ledger
    assert isinstance(new, WrittenLedger)
    record = await places.old.queued()
    await new.do(Welcome("moving:1"))
    await new.do(Whole("moving:1"))
    with pytest.raises(NotAllowed, match="finished by another"):
        await new.do(TakeIn(Batch([record], []), "moving:1"))
    assert places.new.records() == {}


async def test_large_records_move_a_few_at_a_time(places: Places) -> None:
    large = f'{{"text": "{"x" * 3_000_000}"}}'
    for _ in range(2):
        await places.old.queued(arguments=large)
    await places.empty()
    copied: list[int] = []
    await places.move(lambda step, count: copied.append(count) if step == "copied" else None)
    assert copied == [1, 1]


@pytest.mark.parametrize("moved", [False, True])
async def test_an_app_on_a_ledger_that_was_moved_is_told_where(places: Places, moved: bool) -> None:
    await places.empty()
    if moved:
        await places.move()
    else:
        with pytest.raises(Killed):
            await places.move(killed_at("shut"))
    with pytest.raises(LedgerMoved) as told:
        await written_and_joined(places.old)
    assert written(places.new).name in str(told.value)
    assert ("SEGUNDO_LEDGER" if moved else "segundo move") in str(told.value)
