"""What the chaos's checker knows beyond the soak's: outages, whose outcome is stored, children, keys."""

from pathlib import Path

import pytest

from tests.chaos.follower import Follower
from tests.chaos.rules import MORE
from tests.chaos.verdict import verdict_of
from tests.soak.checker import Rule, judge
from tests.soak.evidence import STORED, Evidence
from tests.soak.history import (
    BrokerKilled,
    Delivered,
    Event,
    History,
    Journal,
    Outage,
    PlannedCall,
    Published,
    Struck,
)
from tests.soak.rows import Row
from tests.test_history_checker import SECOND, A, B, declared, request, row, run

TASK = PlannedCall("c", "task")
PLAIN = PlannedCall("c", "plain")


def rules(events: list[Event], *rows: Row) -> set[Rule]:
    violations = judge(Evidence(History.of(*events), rows), more=MORE)
    assert all(violation.sentence for violation in violations)
    return {violation.rule for violation in violations}


def ended(claim: int = 1, state: str = "succeeded", **values: object) -> Row:
    """As this claim's attempt left it, a declared task's."""
    result = str(claim) if state == "succeeded" else None
    return declared(state=state, claim=claim, **{"finished": 90, "result": result, **values})


def outage(at: int = 12, until: int = 60, robs: int | None = 30, process: str = A) -> list[Event]:
    return [Outage(t=at, until=until, processes=(process,), robs=robs)]


TWICE = [*request(TASK), *run(until=70), *run(at=40, until=50, process=B, claim=2)]


def test_what_ran_once_breaks_nothing() -> None:
    assert rules([*request(TASK), *run()], ended()) == set()


def test_an_attempt_may_start_beside_one_whose_process_was_out_of_touch_for_a_lease() -> None:
    assert rules([*TWICE, *outage()], ended(claim=2, crashes=1)) == set()


@pytest.mark.parametrize(
    "other",
    [[], outage(robs=None), outage(robs=45), outage(process=B), outage(at=80 + STORED, until=90 + STORED)],
    ids=["none", "too short", "not yet", "another process", "later"],
)
def test_but_not_without_an_outage_that_explains_it(other: list[Event]) -> None:
    assert Rule.OVERLAP in rules([*TWICE, *other], ended(claim=2, crashes=1))


def test_who_was_frozen_between_its_claim_and_its_start_may_start_late() -> None:
    late = [*request(TASK), *run(at=40, until=50, process=B, claim=2), *run(at=61, until=62)]
    assert rules([*late, *outage()], ended(claim=2, crashes=1)) == set()
    assert Rule.CLAIM_SHARED in rules(late, ended(claim=2, crashes=1))


def test_a_plain_function_does_not_start_twice_whatever_the_outage() -> None:
    twice = [*request(PLAIN), *run(until=70), *run(at=40, until=50, process=B, claim=2)]
    assert rules([*twice, *outage()], row(claim=2, finished=90)) == {Rule.STARTED_TWICE}


def test_a_plain_function_is_lost_with_a_process_that_was_out_of_touch() -> None:
    lost = row(state="failed", reason="WorkerLost", crashes=1, finished=50)
    assert rules([*request(PLAIN), *run(until=70), *outage()], lost) == set()
    assert rules([*request(PLAIN), *run(until=70)], lost) == {Rule.UNEARNED}


def test_an_outcome_of_who_had_lost_its_claim_is_not_its_own() -> None:
    """The result says which attempt's it is."""
    assert rules([*TWICE, *outage()], ended(claim=2, crashes=1, result="1")) == {Rule.NOT_ITS_OWN}


def test_a_record_that_ended_before_the_holder_of_its_claim_did_is_not_its_own() -> None:
    events = [*request(PLAIN), *run(until=30 * SECOND)]
    assert rules(events, row(finished=SECOND)) == {Rule.NOT_ITS_OWN}


def test_a_record_may_not_end_by_an_attempt_that_was_cut_off() -> None:
    events = [*request(TASK), *run(), *run(at=20, until=None, claim=2, attempt=2)]
    assert Rule.NOT_ITS_OWN in rules(events, ended(claim=2))


CHILD = PlannedCall("d", "task", parent="c")


def test_a_child_is_recorded_with_its_parents_success() -> None:
    both = [*request(TASK, CHILD), *run(), *run("d", at=95, until=99)]
    child = declared("d", result="1", finished=100)
    assert rules(both, ended(), child) == set()
    assert rules([*request(TASK, CHILD), *run()], ended()) == {Rule.CHILD}


def test_a_child_of_what_failed_is_told() -> None:
    failing = PlannedCall("c", "task", "fails")
    events = [*request(failing, CHILD), *run(outcome="raised"), *run("d", at=95, until=99)]
    child = declared("d", result="1", finished=100)
    failed = ended(state="failed", reason="Error", failures=3)
    assert rules(events, failed, child) == {Rule.CHILD}


def keyed(first: tuple[int, int], second: tuple[int, int]) -> set[Rule]:
    calls = [PlannedCall(name, "task", key="k") for name in "ab"]
    events = [*request(*calls)]
    rows: list[Row] = []
    for name, (at, until) in zip("ab", (first, second), strict=True):
        events += run(name, at=at * SECOND, until=until * SECOND)
        rows.append(declared(name, result="1", finished=until * SECOND))
    return rules(events, *rows)


def test_two_calls_of_one_key_that_were_live_at_once_are_told() -> None:
    assert keyed((1, 2), (3, 4)) == set()
    assert keyed((1, 3), (2, 4)) == {Rule.KEY}


@pytest.mark.parametrize(("same_as", "broken"), [("r-a", set()), ("r-x", {Rule.KEY}), (None, {Rule.KEY})])
def test_a_duplicate_is_the_same_as_a_call_with_its_key(same_as: str | None, broken: set[Rule]) -> None:
    calls = [PlannedCall(name, "task", key="k") for name in "ab"]
    duplicate = declared("b", state="cancelled", reason="Duplicate", claim=0, same_as=same_as, finished=20)
    first = declared("a", result="1", finished=20)
    assert rules([*request(*calls), *run("a")], first, duplicate) == broken


def test_only_what_somebody_asked_to_cancel_is_cancelled() -> None:
    cancelled = declared(state="cancelled", reason="Cancelled", claim=0, finished=20)
    asked = PlannedCall("c", "task", cancel=True)
    assert rules(request(asked), cancelled) == set()
    assert rules(request(TASK), cancelled) == {Rule.WRONG_OUTCOME}


def test_the_last_progress_is_in_the_record() -> None:
    steps = [*request(PlannedCall("c", "task", steps=3)), *run()]
    assert rules(steps, ended(progress='{"done": 3}')) == set()
    assert rules(steps, ended(progress='{"done": 2}')) == {Rule.PROGRESS}
    assert rules(steps, ended()) == {Rule.PROGRESS}


def test_messages_that_a_killed_broker_had_are_counted_and_those_published_again() -> None:
    events: list[Event] = [
        Published(t=1, records=("a", "b", "c")),
        Delivered(t=2, record="a", process=A),
        BrokerKilled(t=3, records=("b", "c")),
        Struck(t=3, until=5, blow="kill the broker", hit=True),
        Published(t=6, records=("b",)),
    ]
    figures = verdict_of(History.of(*events), (), ("kill the broker",)).figures
    assert figures["messages that the broker had when it was killed"] == 2
    assert figures["… about records that were published again"] == 1
    assert figures["hit: kill the broker"] == 1


def test_a_history_is_followed_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with Journal(path) as journal:
        follower = Follower(path)
        started, end = run()
        for event in (
            started,
            Published(t=3, records=("r-c", "r-d")),
            Delivered(t=4, record="r-d", process=A),
        ):
            journal.append(event)
        follower.look()
        assert follower.running_in([A]) == [started]
        assert follower.running_in([B]) == []
        assert follower.waiting == {"r-c"}
        journal.append(end)
        assert follower.look().running_in([A]) == []
        follower.close()
