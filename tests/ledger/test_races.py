"""Two want the same transition at the same moment: one wins, and both are told the truth.

Each race is run many times over, between two processes and between two ledgers of one process.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from threading import Barrier
from typing import Any

import pytest

from segundo.errors import UnknownRecord
from segundo.record import Call, Record, State, new_id
from tests.ledger.actors import SPAWN, Actor, Order, a_process, a_thread
from tests.ledger.suite import Stage, after, call, settlement

ROUNDS = 40  # of races between single records
BATTLES = 6  # of races for all that a dead process left, `LEFT` records each
LEFT = 8
ONE, OTHER = "one", "other"


@pytest.fixture(scope="module", params=["processes", "threads"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Actor, Actor]]:
    with ExitStack() as stack:
        if request.param == "processes":
            barrier = SPAWN.Barrier(2)
            yield stack.enter_context(a_process(barrier)), stack.enter_context(a_process(barrier))
        else:
            met = Barrier(2)
            yield stack.enter_context(a_thread(met)), stack.enter_context(a_thread(met))


class Race:
    """Two actors on the ledger of a stage, whose orders begin at the same moment, one by one."""

    def __init__(self, stage: Stage, one: Actor, other: Actor) -> None:
        self.stage = stage
        self._actors = (one, other)
        one.meet(stage.store, ONE)
        other.meet(stage.store, OTHER)

    def run(self, one: Sequence[Order], other: Sequence[Order]) -> list[tuple[Any, Any]]:
        """The answers of both, round by round."""
        for actor, orders in zip(self._actors, (one, other), strict=True):
            actor.begin([order._replace(together=True) for order in orders])
        first, second = (actor.answers() for actor in self._actors)
        return list(zip(first, second, strict=True))

    def run_through(self, one: Sequence[Order], other: Sequence[Order]) -> tuple[list[Any], list[Any]]:
        """Both begin at the same moment, and then go each at its own pace."""
        for actor, orders in zip(self._actors, (one, other), strict=True):
            actor.begin([orders[0]._replace(together=True), *orders[1:]])
        first, second = (actor.answers() for actor in self._actors)
        return first, second


@pytest.fixture
def race(stage: Stage, pair: tuple[Actor, Actor]) -> Iterator[Race]:
    yield Race(stage, *pair)
    for actor in pair:
        actor.do("die")


def order(method: str, *args: Any, **kwargs: Any) -> Order:
    return Order(method, args, kwargs)


def claim_of(owner: str, record: Record) -> Order:
    return order("claim", owner, ids=[record.id], limit=1)


def settle(record: Record, state: State = State.SUCCEEDED, **fields: Any) -> Order:
    return order("settle", [settlement(record, state, **fields)])


def cancel(record: Record) -> Order:
    return order("cancel", record.id)


def release(owner: str, record: Record) -> Order:
    return order("release", owner, [record.id])


async def queued(stage: Stage, number: int = ROUNDS) -> list[Record]:
    return list(await stage.ledger.record([call() for _ in range(number)], owner=stage.me))


async def running(stage: Stage, number: int = ROUNDS) -> list[Record]:
    ids = [record.id for record in await queued(stage, number)]
    return list(await stage.ledger.claim(stage.me, ids=ids, limit=number))


async def held_by(stage: Stage, owner: str) -> list[Record]:
    calls = [call(held=True) for _ in range(ROUNDS)]
    return list(await stage.ledger.record(calls, owner=owner))


# For what is queued


async def test_of_two_claims_of_a_record_one_gets_it(race: Race) -> None:
    records = await queued(race.stage)
    answers = race.run(
        [claim_of(ONE, record) for record in records], [claim_of(OTHER, record) for record in records]
    )
    for record, (one, other) in zip(records, answers, strict=True):
        (claimed,) = one + other
        assert race.stage.now_is(record) == claimed
        assert (claimed.id, claimed.claim, claimed.owner) == (record.id, 1, ONE if one else OTHER)


async def test_of_two_claims_of_whatever_is_due_no_record_is_in_both(race: Race) -> None:
    records = await queued(race.stage, 3 * ROUNDS)
    answers = race.run([order("claim", ONE, limit=2)] * ROUNDS, [order("claim", OTHER, limit=2)] * ROUNDS)
    claimed = [record.id for both in answers for answer in both for record in answer]
    assert sorted(claimed) == sorted(record.id for record in records)


async def test_two_who_publish_at_once_keep_to_one_window(race: Race) -> None:
    queues = [f"queue{number}" for number in range(ROUNDS)]
    calls = [call()._replace(queue=queue) for queue in queues for _ in range(5)]
    await race.stage.ledger.record(calls, owner=race.stage.me)
    orders = [order("publish", queues=[queue], window=2, limit=2, lease=60.0) for queue in queues]
    for one, other in race.run(orders, orders):
        assert [len(each.records) for each in (one, other)] in ([2, 0], [0, 2])


async def test_a_record_that_is_cancelled_while_it_is_claimed_runs_and_is_told_or_never_runs(
    race: Race,
) -> None:
    records = await queued(race.stage)
    answers = race.run([claim_of(ONE, record) for record in records], [cancel(record) for record in records])
    for record, (claimed, cancelled) in zip(records, answers, strict=True):
        now = race.stage.now_is(record)
        assert cancelled in (now, now._replace(cancel_requested=True))
        if claimed:
            assert (now.state, now.cancel_requested, now.claim) == (State.RUNNING, True, 1)
        else:
            assert (now.state, now.reason, now.claim) == (State.CANCELLED, "Cancelled", 0)


# For what waits


async def test_a_record_that_is_cancelled_while_it_is_released_is_cancelled(race: Race) -> None:
    records = await held_by(race.stage, ONE)
    race.run([release(ONE, record) for record in records], [cancel(record) for record in records])
    assert {race.stage.now_is(record).state for record in records} == {State.CANCELLED}


async def test_a_record_is_claimed_once_however_often_it_is_released(race: Race) -> None:
    records = await held_by(race.stage, ONE)
    releases, claims = [release(ONE, record) for record in records], [order("claim", OTHER, limit=ROUNDS)]
    answers = [*race.run(releases, claims * ROUNDS), *race.run(releases, claims * ROUNDS)]
    claimed = [record.id for _, answer in answers for record in answer]
    assert sorted(claimed) == sorted(record.id for record in records)
    assert {race.stage.now_is(record).claim for record in records} == {1}
    assert {race.stage.now_is(record).state for record in records} == {State.RUNNING}


async def test_a_record_put_behind_one_that_just_ends_never_waits_for_ever(race: Race) -> None:
    before = await running(race.stage)
    calls = [call(after=after(record.id)) for record in before]
    answers = race.run(
        [settle(record) for record in before], [order("record", [one], owner=OTHER) for one in calls]
    )
    assert all(settled == [True] for settled, _ in answers)
    now = race.stage.records()
    assert {now[one.id].state for one in calls} == {State.QUEUED}


async def test_a_record_put_behind_one_that_just_fails_is_cancelled_each_time(race: Race) -> None:
    before = await running(race.stage)
    calls = [call(after=after(record.id)) for record in before]
    race.run(
        [settle(record, State.FAILED) for record in before],
        [order("record", [one], owner=OTHER) for one in calls],
    )
    now = race.stage.records()
    assert {(now[one.id].state, now[one.id].reason) for one in calls} == {
        (State.CANCELLED, "PredecessorFailed")
    }


async def test_a_record_put_behind_one_that_is_just_pruned_is_refused_or_runs(race: Race) -> None:
    before = [await race.stage.ended(priority=9) for _ in range(ROUNDS // 4)]
    calls = [call(after=after(record.id)) for record in before]
    answers = race.run(
        [order("prune", older_than=0, limit=1)] * len(calls),
        [order("record", [one], owner=OTHER) for one in calls],
    )
    now = race.stage.records()
    for one, (_, recorded) in zip(calls, answers, strict=True):
        if isinstance(recorded, UnknownRecord):
            assert one.id not in now
        else:
            assert now[one.id].state == State.QUEUED


async def test_a_child_put_behind_what_just_ends_never_waits_for_ever(race: Race) -> None:
    before, parents = await running(race.stage), await running(race.stage)
    children = [call(after=after(record.id)) for record in before]
    answers = race.run(
        [settle(record) for record in before],
        [settle(parent, children=(child,)) for parent, child in zip(parents, children, strict=True)],
    )
    assert answers == [([True], [True])] * ROUNDS
    now = race.stage.records()
    assert {now[child.id].state for child in children} == {State.QUEUED}


async def test_a_parent_that_is_settled_twice_at_once_records_the_children_of_one(race: Race) -> None:
    parents = await running(race.stage)
    pairs = [(call(), call()) for _ in parents]
    answers = race.run(
        [settle(parent, children=(one,)) for parent, (one, _) in zip(parents, pairs, strict=True)],
        [settle(parent, children=(other,)) for parent, (_, other) in zip(parents, pairs, strict=True)],
    )
    now = race.stage.records()
    for (one, other), (first, second) in zip(pairs, answers, strict=True):
        assert [one.id in now, other.id in now] == first + second
        assert sorted(first + second) == [False, True]


# For what runs


async def test_of_two_settlements_of_one_claim_one_is_stored(race: Race) -> None:
    records = await running(race.stage)
    answers = race.run(
        [settle(record) for record in records],
        [settle(record, State.FAILED, reason="ValueError") for record in records],
    )
    for record, (one, other) in zip(records, answers, strict=True):
        assert sorted(one + other) == [False, True]
        assert race.stage.now_is(record).state == (State.SUCCEEDED if one == [True] else State.FAILED)


async def test_a_record_that_is_cancelled_while_it_asks_for_another_attempt_gets_none(race: Race) -> None:
    records = await running(race.stage)
    answers = race.run(
        [settle(record, State.QUEUED, counted=False) for record in records],
        [cancel(record) for record in records],
    )
    assert [settled for settled, _ in answers] == [[True]] * len(records)
    assert {race.stage.now_is(record).state for record in records} == {State.CANCELLED}


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
async def test_what_is_cancelled_while_it_is_settled_is_as_it_was_settled(race: Race, state: State) -> None:
    records = await running(race.stage)
    answers = race.run(
        [settle(record, state, reason="Cancelled") for record in records],
        [cancel(record) for record in records],
    )
    for record, (settled, cancelled) in zip(records, answers, strict=True):
        now = race.stage.now_is(record)
        assert (settled, now.state) == ([True], state)
        asked = (
            cancelled.state == State.RUNNING
        )  # it came first, and the attempt may not have heard of it yet
        assert (cancelled.cancel_requested, now.cancel_requested) == (asked, asked)


async def test_progress_is_stored_only_while_the_record_runs(race: Race) -> None:
    records = await running(race.stage)
    answers = race.run(
        [settle(record) for record in records],
        [order("progress", record.id, record.claim, '"half"') for record in records],
    )
    for record, (settled, stored) in zip(records, answers, strict=True):
        now = race.stage.now_is(record)
        assert settled == [True]
        assert (now.state, now.progress) == (State.SUCCEEDED, '"half"' if stored else None)


async def test_an_old_claim_settles_nothing_while_the_new_one_does(race: Race) -> None:
    old = await running(race.stage)
    await race.stage.ledger.settle([settlement(record, State.QUEUED, counted=False) for record in old])
    ids = [record.id for record in old]
    new = {record.id: record for record in await race.stage.ledger.claim(ONE, ids=ids, limit=len(ids))}
    answers = race.run(
        [settle(record, State.FAILED, reason="OldClaim") for record in old],
        [settle(new[record.id]) for record in old],
    )
    assert answers == [([False], [True])] * len(old)
    assert {race.stage.now_is(record).state for record in old} == {State.SUCCEEDED}


# For what the dead left


async def left(race: Race, *calls: Call, run: bool = True) -> list[Record]:
    return await race.stage.left_by_the_dead(*calls, run=run)


def budgeted() -> list[Call]:
    return [call(crash_limit=1) for _ in range(LEFT)]


async def test_what_a_dead_process_ran_is_settled_or_rescued_never_both(race: Race) -> None:
    for _ in range(BATTLES):
        records = await left(race, *budgeted())
        settled, (rescued,) = race.run_through([settle(record) for record in records], [order("rescue")])
        taken = {record.id for record in rescued}
        for record, [mine] in zip(records, settled, strict=True):
            now = race.stage.now_is(record)
            assert mine is (record.id not in taken)
            assert (now.state, now.crashes) == ((State.SUCCEEDED, 0) if mine else (State.QUEUED, 1))


async def test_of_two_rescues_one_takes_each_record_and_counts_its_crash_once(race: Race) -> None:
    for _ in range(BATTLES):
        records = await left(race, *budgeted())
        ((one, other),) = race.run([order("rescue")], [order("rescue")])
        assert sorted(record.id for record in (*one, *other)) == sorted(record.id for record in records)
        assert {race.stage.now_is(record).crashes for record in records} == {1}


async def test_a_late_release_of_the_dead_does_not_touch_what_runs_again(race: Race) -> None:
    for _ in range(BATTLES):
        records = await left(race, *(call() for _ in range(LEFT)), run=False)
        owner = records[0].owner
        assert owner is not None
        _, (rescued, claimed) = race.run_through(
            [release(owner, record) for record in records],
            [order("rescue"), order("claim", OTHER, limit=LEFT)],
        )
        more = await race.stage.ledger.claim(race.stage.me, limit=LEFT)
        assert {record.id for record in rescued} <= {record.id for record in records}
        assert sorted(r.id for r in (*claimed, *more)) == sorted(r.id for r in records)
        assert {race.stage.now_is(record).claim for record in records} == {1}
        assert {race.stage.now_is(record).state for record in records} == {State.RUNNING}


async def test_a_record_that_is_cancelled_while_it_is_rescued_is_cancelled_in_the_end(race: Race) -> None:
    for _ in range(BATTLES):
        records = await left(race, *budgeted())
        race.run_through([cancel(record) for record in records], [order("rescue")])
        assert {race.stage.now_is(record).state for record in records} == {State.CANCELLED}


# For a key


async def test_of_two_calls_with_one_key_one_is_live_and_the_other_its_duplicate(race: Race) -> None:
    def calls() -> list[Order]:
        return [
            order("record", [call(id=new_id(), key=f"key-{number}")], owner=ONE) for number in range(ROUNDS)
        ]

    answers = race.run(calls(), calls())
    for (one,), (other,) in answers:
        live, duplicate = sorted((one, other), key=lambda record: record.state == State.CANCELLED)
        assert (live.state, live.reason, live.same_as) == (State.QUEUED, None, None)
        assert (duplicate.state, duplicate.reason) == (State.CANCELLED, "Duplicate")
        assert duplicate.same_as == live.id
        assert race.stage.now_is(live) == live
        assert race.stage.now_is(duplicate) == duplicate


async def test_a_key_that_just_became_free_is_taken_once_or_not_at_all(race: Race) -> None:
    keys = [f"key-{number}" for number in range(ROUNDS)]
    recorded = await race.stage.ledger.record([call(key=key) for key in keys], owner=race.stage.me)
    ids = [record.id for record in recorded]
    before = await race.stage.ledger.claim(race.stage.me, ids=ids, limit=len(ids))
    answers = race.run(
        [settle(record) for record in before],
        [order("record", [call(key=record.key)], owner=OTHER) for record in before],
    )
    for record, (_, (second,)) in zip(before, answers, strict=True):
        expected = (State.CANCELLED, record.id) if second.same_as else (State.QUEUED, None)
        assert (second.state, second.same_as) == expected
