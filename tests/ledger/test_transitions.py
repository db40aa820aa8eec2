"""Each transition of the table from each state: what is allowed changes what it says, the rest nothing."""

from collections.abc import Callable

import pytest

from segundo.ledger import Ledger
from segundo.record import LIVE, TRANSITIONS, Record, State
from tests.ledger.effects import EFFECTS, IN_ITS_OWN_WORDS, Effect
from tests.ledger.law import changed_columns, check_the_table, families
from tests.ledger.starts import ABSENT, STARTS, Start
from tests.ledger.suite import Stage, Store
from tests.ledger.verbs import LATER, VERBS, refusal


@pytest.mark.parametrize(("verb", "start"), EFFECTS)
async def test_what_is_allowed_changes_exactly_what_the_table_says(
    stage: Stage, verb: str, start: str
) -> None:
    found = await STARTS[start](stage)
    await VERBS[verb].prepare(stage)
    earlier = stage.records()
    stage.clock.move(LATER)
    await VERBS[verb].act(stage, found)
    later = stage.records()
    check_the_table(earlier, later, VERBS[verb].family)
    _check_effect(EFFECTS[verb, start], earlier.get(found.record.id), later.get(found.record.id))


def _check_effect(effect: Effect, earlier: Record | None, later: Record | None) -> None:
    if effect.changes is None:
        assert later is None
        return
    assert later is not None
    changed = changed_columns(earlier, later)
    if earlier is None:
        assert effect.changes.items() <= changed.items()
    else:
        own_words = IN_ITS_OWN_WORDS - set(effect.changes)
        assert {
            column: value for column, value in changed.items() if column not in own_words
        } == effect.changes


@pytest.mark.parametrize("start", STARTS)
async def test_what_is_not_allowed_changes_nothing_and_says_so(
    start: str, new_store: Callable[[], Store]
) -> None:
    refused = [name for name in VERBS if (name, start) not in EFFECTS]
    while refused:
        async with Stage.on(new_store()) as stage:
            found = await STARTS[start](stage)
            stage.clock.move(LATER)
            await _refuse_while_nothing_changes(stage, found, start, refused)


async def _refuse_while_nothing_changes(stage: Stage, found: Start, start: str, refused: list[str]) -> None:
    """Go through the verbs on one stage until one has changed another record: the next begins afresh."""
    untouched = stage.records()
    while refused and stage.records() == untouched:
        name = refused.pop(0)
        await VERBS[name].prepare(stage)
        earlier = stage.records()
        answer = await VERBS[name].act(stage, found)
        later = stage.records()
        assert later.get(found.record.id) == earlier.get(found.record.id), name
        check_the_table(earlier, later, VERBS[name].family)
        if VERBS[name].says_nothing and later == earlier:
            assert answer == refusal(VERBS[name], start), name


def test_every_row_of_the_table_is_exercised_by_everybody_who_may_make_it() -> None:
    exercised = {
        (effect.letter, source, target, VERBS[verb].family)
        for (verb, start), effect in EFFECTS.items()
        for source, target in [_change(start, effect)]
    }
    table = {
        (row.letter, row.source, row.target, family)
        for row in TRANSITIONS
        for family in families(row)
        if family == "forget" or hasattr(Ledger, family)
    }
    assert exercised == table


def _change(start: str, effect: Effect) -> tuple[State | None, State | None]:
    source = SOURCES[start]
    target = None if effect.changes is None else effect.changes.get("state", source)
    return source, target


def _source(start: str) -> State | None:
    if start == ABSENT:
        return None
    if start.startswith(("held", "behind")):
        return State.WAITING
    if start.startswith(("running", "lost")):
        return State.RUNNING
    return State.QUEUED if start.startswith(("due", "future", "suspect")) else State(start.split()[0])


SOURCES = {start: _source(start) for start in STARTS}


@pytest.mark.parametrize("start", STARTS)
async def test_a_start_is_in_the_state_that_its_name_says(stage: Stage, start: str) -> None:
    record = (await STARTS[start](stage)).record
    assert getattr(stage.records().get(record.id), "state", None) == SOURCES[start]


def test_the_table_leaves_no_state_without_a_way_in_and_no_live_state_without_a_way_out() -> None:
    assert {row.target for row in TRANSITIONS} == {*State, None}
    assert {row.source for row in TRANSITIONS} == {*State, None}
    assert all(any(row.source is state is not row.target for row in TRANSITIONS) for state in LIVE)
