"""The soak's checker, on histories written by hand: each rule catches its break, and only that."""

import os
from pathlib import Path

import pytest

from tests.soak.checker import Rule, check
from tests.soak.history import (
    Answered,
    Asked,
    Born,
    Closed,
    Ended,
    Event,
    History,
    Journal,
    Killed,
    Opened,
    Outcome,
    PlannedCall,
    Sent,
    Stalled,
    Started,
    Vanished,
)
from tests.soak.rows import CLOCKS_APART, Row

A, B = "10@1", "11@2"  # two processes
SECOND = 1_000_000_000


def request(*calls: PlannedCall, accepts: int | None = 200, status: int | None = 200) -> list[Event]:
    """One request, served by A: sent at 0, opened at 1, closed at 9, answered at 5 (or not at all)."""
    events: list[Event] = [
        Sent(t=0, request="q", calls=calls, accepts=accepts),
        Opened(t=1, request="q", process=A),
        Closed(t=9, request="q", process=A),
    ]
    return events if status is None else [*events, Answered(t=5, request="q", status=status)]


def run(
    call: str = "c",
    *,
    at: int = 10,
    until: int | None = 15,
    outcome: Outcome = "ran",
    process: str = A,
    attempt: int = 1,
    claim: int = 1,
) -> list[Event]:
    name = f"{call} at {at}"
    started = Started(
        t=at, run=name, call=call, process=process, record=f"r-{call}", attempt=attempt, claim=claim
    )
    if until is None:
        return [started]
    return [started, Ended(t=until, run=name, outcome=outcome)]


def row(call: str = "c", state: str = "succeeded", claim: int = 1, **values: object) -> Row:
    return Row(id=f"r-{call}", call=call, state=state, claim=claim, **values)  # type: ignore[arg-type]


def declared(call: str = "c", **values: object) -> Row:
    return row(call, **{"attempts": 3, "crash_limit": 3, **values})  # type: ignore[arg-type]


def rules(events: list[Event], *rows: Row, torn: int = 0) -> set[Rule]:
    violations = check(History.of(*events, torn=torn), rows)
    assert all(violation.sentence for violation in violations)
    return {violation.rule for violation in violations}


PLAIN = PlannedCall("c", "plain")
TASK = PlannedCall("c", "task")


def test_a_call_that_was_answered_recorded_and_run_breaks_nothing() -> None:
    assert rules([*request(PLAIN), *run()], row()) == set()


def test_an_empty_history_breaks_nothing() -> None:
    assert rules([]) == set()


def test_an_answered_call_without_a_record_is_lost() -> None:
    assert rules(request(PLAIN)) == {Rule.LOST}


def test_a_call_in_process_needs_no_record() -> None:
    assert rules(request(PlannedCall("c", "inline"))) == set()


def test_a_call_whose_request_got_no_answer_may_be_missing() -> None:
    assert rules(request(PLAIN, status=None)) == set()


def test_a_call_whose_request_got_no_answer_may_have_run() -> None:
    assert rules([*request(PLAIN, status=None), *run()], row()) == set()


def test_a_request_recorded_in_part_is_torn() -> None:
    two = request(PLAIN, PlannedCall("d", "task"), status=None)
    assert rules([*two, *run()], row()) == {Rule.TORN}


def test_a_call_recorded_twice_is_told() -> None:
    assert rules([*request(PLAIN), *run()], row(), row()) == {Rule.RECORDED_TWICE}


@pytest.mark.parametrize("state", ["waiting", "queued", "running"])
def test_a_record_that_is_live_at_the_end_is_unfinished(state: str) -> None:
    assert rules(request(PLAIN), row(state=state)) == {Rule.UNFINISHED}


def test_an_end_without_a_reason_is_told() -> None:
    failing = PlannedCall("c", "plain", "fails")
    events = [*request(failing), *run(outcome="raised")]
    assert rules(events, row(state="failed", failures=1)) == {Rule.NO_REASON}
    assert rules(events, row(state="failed", failures=1, reason="ValueError")) == set()


@pytest.mark.parametrize("status", [422, 500, 503])
def test_a_call_of_a_refused_request_that_ran_is_told(status: int) -> None:
    events = [*request(PLAIN, status=status, accepts=None if status != 503 else 200), *run()]
    assert rules(events, row()) == {Rule.REFUSED_RAN, Rule.REFUSED_RECORDED}


def test_an_inline_call_of_a_refused_request_that_ran_is_told() -> None:
    events = [*request(PlannedCall("c", "inline"), status=503), *run(at=6, until=7)]
    assert rules(events) == {Rule.REFUSED_RAN}


def test_a_record_of_a_refused_request_is_told_even_if_it_never_ran() -> None:
    assert Rule.REFUSED_RECORDED in rules(request(PLAIN, status=503), row(state="waiting"))


def test_a_request_whose_endpoint_raises_is_refused_even_if_no_answer_arrived() -> None:
    events = [*request(PLAIN, accepts=None, status=None), *run()]
    assert Rule.REFUSED_RAN in rules(events, row())


def test_a_commit_whose_outcome_the_process_died_too_soon_to_learn_may_stand() -> None:
    refused = [*request(PLAIN, status=503), *run(at=2 * SECOND, until=2 * SECOND + 1, process=B)]
    assert rules([*refused, Killed(t=SECOND, processes=(A,))], row()) == set()


def test_a_process_that_lived_long_enough_had_to_learn_its_commits_outcome() -> None:
    refused = [*request(PLAIN, status=503), *run(at=5 * SECOND, until=5 * SECOND + 1, process=B)]
    late = Killed(t=3 * SECOND, processes=(A,))
    assert Rule.REFUSED_RAN in rules([*refused, late], row())
    assert rules([*refused, late, Stalled(t=0, until=2 * SECOND + 1)], row()) == set()


def test_a_plain_function_that_started_twice_is_told() -> None:
    lost = [Killed(t=20, processes=(A,)), *run(at=12, until=None), *run(at=30, until=31, process=B, claim=2)]
    assert rules([*request(PLAIN), *lost], row(claim=2)) == {Rule.STARTED_TWICE}


def test_a_task_whose_process_was_killed_may_run_again() -> None:
    lost = [Killed(t=20, processes=(A,)), *run(at=12, until=None), *run(at=30, until=31, process=B, claim=2)]
    assert rules([*request(TASK), *lost], declared(claim=2, crashes=1)) == set()


def test_a_killed_group_takes_every_process_that_was_born_in_it() -> None:
    born = [Born(t=0, process=A, group=7), Born(t=25, process=B, group=8)]
    lost = [Killed(t=20, groups=(7,)), *run(at=12, until=None), *run(at=30, until=31, process=B, claim=2)]
    assert rules([*born, *request(TASK), *lost], declared(claim=2)) == set()
    other = [Killed(t=20, groups=(9,)), *lost[1:]]
    assert rules([*born, *request(TASK), *other], declared(claim=2)) == {Rule.OVERLAP}


def test_an_attempt_that_starts_while_an_earlier_one_runs_overlaps() -> None:
    events = [*request(TASK), *run(at=10, until=40), *run(at=30, until=50, process=B, claim=2)]
    assert Rule.OVERLAP in rules(events, declared(claim=2))


def test_an_attempt_that_starts_before_its_predecessors_process_died_overlaps() -> None:
    events = [*request(TASK), *run(at=10, until=None), *run(at=30, until=50, process=B, claim=2)]
    assert Rule.OVERLAP in rules([*events, Killed(t=31, processes=(A,))], declared(claim=2))
    assert rules([*events, Killed(t=29, processes=(A,))], declared(claim=2)) == set()
    assert rules([*events, Vanished(t=29, process=A)], declared(claim=2)) == set()


def test_an_attempt_that_never_ended_in_a_living_process_overlaps_with_any_later_one() -> None:
    events = [*request(TASK), *run(at=10, until=None), *run(at=3 * SECOND, until=None, process=B, claim=2)]
    assert Rule.OVERLAP in rules([*events, Killed(t=4 * SECOND, processes=(A, B))], declared(claim=2))


def test_two_attempts_under_one_claim_are_told() -> None:
    events = [*request(TASK), *run(outcome="raised"), *run(at=30, until=50, attempt=2, claim=1)]
    assert rules(events, declared(claim=2, failures=1)) == {Rule.CLAIM_SHARED}


def test_more_attempts_than_claims_are_told() -> None:
    events = [*request(TASK), *run(outcome="raised"), *run(at=30, until=50, attempt=2, claim=2)]
    assert rules(events, declared(claim=1, failures=1)) == {Rule.CLAIM_SHARED}
    assert rules(events, declared(claim=2, failures=1)) == set()


def test_a_task_that_succeeded_and_runs_again_though_its_process_lived_is_told() -> None:
    events = [*request(TASK), *run(), *run(at=30, until=50, process=B, claim=2)]
    assert rules(events, declared(claim=2)) == {Rule.REPEATED}
    assert rules([*events, Killed(t=20, processes=(A,))], declared(claim=2)) == set()


def test_an_attempt_that_failed_and_runs_again_uncounted_is_told() -> None:
    events = [*request(TASK), *run(outcome="raised"), *run(at=30, until=50, attempt=1, claim=2)]
    assert rules(events, declared(claim=2, failures=1)) == {Rule.REPEATED}


def test_an_attempt_that_was_put_back_at_shutdown_may_run_again_uncounted() -> None:
    events = [*request(TASK), *run(outcome="cancelled"), *run(at=30, until=50, process=B, claim=2)]
    assert rules(events, declared(claim=2)) == set()


def test_an_attempt_that_starts_when_its_record_has_ended_is_told() -> None:
    late = 50 + CLOCKS_APART
    events = [*request(TASK), *run(outcome="cancelled"), *run(at=late, until=late + 1, process=B, claim=2)]
    assert rules(events, declared(claim=2, finished=20)) == {Rule.AFTER_ITS_END}
    assert rules(events, declared(claim=2, finished=late + 2)) == set()


def test_a_call_that_starts_before_its_request_is_over_is_early() -> None:
    assert rules([*request(PLAIN), *run(at=8)], row()) == {Rule.EARLY}


def test_a_call_of_a_request_whose_process_died_may_start_after_that() -> None:
    sent, opened, _, answered = request(PLAIN)
    events = [sent, opened, answered, *run(at=8, process=B)]
    assert rules([*events, Killed(t=7, processes=(A,))], row()) == set()
    assert rules(events, row()) == {Rule.EARLY}


def test_plain_calls_out_of_order_are_told() -> None:
    two = request(PLAIN, PlannedCall("d", "plain"))
    in_order = [*two, *run("c"), *run("d", at=15, until=20)]
    assert rules(in_order, row("c"), row("d")) == set()
    swapped = [*two, *run("c", at=21, until=22), *run("d", at=15, until=20)]
    assert rules(swapped, row("c"), row("d")) == {Rule.ORDER}


def test_plain_calls_side_by_side_are_told() -> None:
    two = [*request(PLAIN, PlannedCall("d", "plain")), *run("c"), *run("d", at=14, until=20)]
    assert rules(two, row("c"), row("d")) == {Rule.ORDER}


def test_tasks_of_one_request_may_run_side_by_side() -> None:
    two = [*request(TASK, PlannedCall("d", "task")), *run("c"), *run("d", at=10, until=20)]
    assert rules(two, declared("c"), declared("d")) == set()


def test_a_call_that_does_not_wait_for_the_one_before_it_is_told() -> None:
    two = [*request(TASK, PlannedCall("d", "task", after="c")), *run("c"), *run("d", at=14, until=20)]
    assert rules(two, declared("c"), declared("d")) == {Rule.ORDER}


def test_a_call_that_succeeds_after_one_that_failed_is_told() -> None:
    failing = PlannedCall("c", "plain", "fails")
    two = [*request(failing, PlannedCall("d", "task", after="c")), *run("c", outcome="raised")]
    failed = row("c", "failed", failures=1, reason="ValueError")
    assert rules([*two, *run("d", at=20, until=21)], failed, declared("d")) == {Rule.ORDER}
    assert rules(two, failed, declared("d", state="cancelled", claim=0, reason="c failed")) == set()


def test_a_success_that_never_ran_is_unearned() -> None:
    assert rules(request(PLAIN), row()) == {Rule.UNEARNED}
    assert rules([*request(PLAIN), *run(outcome="raised")], row()) == {Rule.UNEARNED}


def test_a_failure_that_never_happened_is_unearned() -> None:
    failing = PlannedCall("c", "plain", "fails")
    assert Rule.UNEARNED in rules(request(failing), row(state="failed", failures=1, reason="ValueError"))


def test_a_loss_without_a_death_is_unearned() -> None:
    lost = row(state="failed", reason="WorkerLost", finished=SECOND)
    events = [*request(PLAIN), *run(until=None)]
    assert rules(events, lost) == {Rule.UNEARNED}
    assert rules([*events, Killed(t=SECOND // 2, processes=(A,))], lost) == set()
    assert rules([*events, Killed(t=SECOND * 2, processes=(A,))], lost) == {Rule.UNEARNED}


def test_a_plain_function_may_be_lost_when_its_process_is_asked_to_stop() -> None:
    stopping = [Born(t=0, process=A, group=7), *request(PLAIN), *run(until=20, outcome="cancelled")]
    lost = row(state="failed", reason="WorkerLost", finished=21, failures=1)
    assert rules([*stopping, Asked(t=18, groups=(7,))], lost) == set()
    assert rules([*stopping, Asked(t=18, groups=(8,))], lost) == {Rule.UNEARNED}


def test_a_loss_between_the_claim_and_the_first_line_needs_any_death() -> None:
    lost = row(state="failed", reason="WorkerLost", finished=SECOND)
    assert rules(request(PLAIN), lost) == {Rule.UNEARNED}
    assert rules([*request(PLAIN), Killed(t=20, processes=(A,))], lost) == set()


def test_a_task_given_up_before_its_crash_budget_is_spent_is_told() -> None:
    events = [*request(TASK), *run(until=None), Killed(t=20, processes=(A,))]
    lost = declared(state="failed", reason="WorkerLost", finished=30, crashes=1)
    assert rules(events, lost) == {Rule.WRONG_OUTCOME}


def test_a_call_that_should_succeed_and_failed_is_told() -> None:
    events = [*request(PLAIN), *run(outcome="raised")]
    assert rules(events, row(state="failed", failures=1, reason="OSError")) == {Rule.WRONG_OUTCOME}


def test_a_task_given_up_before_its_retries_are_spent_is_told() -> None:
    failing = [*request(PlannedCall("c", "task", "fails")), *run(outcome="raised")]
    assert rules(failing, declared(state="failed", failures=1, reason="OSError")) == {Rule.WRONG_OUTCOME}


def test_a_call_cancelled_for_nothing_is_told() -> None:
    assert rules(request(TASK), declared(state="cancelled", reason="Why not")) == {Rule.WRONG_OUTCOME}


def test_a_run_without_a_record_is_told() -> None:
    assert rules([*request(PLAIN, status=None), *run()]) == {Rule.RAN_UNRECORDED}


def test_a_record_or_a_run_that_nobody_sent_is_told() -> None:
    assert rules(run()) == {Rule.UNKNOWN_CALL}
    assert Rule.UNKNOWN_CALL in rules([], row())


def test_an_answer_that_the_endpoint_never_gives_is_told() -> None:
    assert rules(request(PLAIN, status=500)) == {Rule.WRONG_ANSWER}
    assert Rule.WRONG_ANSWER in rules(request(PLAIN, accepts=None))


def test_more_torn_lines_than_deaths_make_a_history_worthless() -> None:
    assert rules([], torn=1) == {Rule.UNTRUSTED}
    assert rules([Killed(t=1, processes=(A,))], torn=1) == set()


def test_a_history_is_read_as_it_was_written(own_directory: Path) -> None:
    events = History.of(
        *request(PLAIN, PlannedCall("d", "task", "fails", after="c"), accepts=None),
        *run(until=16),
        Born(t=0, process=A, group=7),
        Killed(t=20, processes=(A, B), groups=(7, 8)),
        Asked(t=20, groups=(7,)),
        Vanished(t=21, process=B),
        Stalled(t=22, until=23),
    )
    with Journal("history") as journal:
        for event in events.events:
            journal.append(event)
    assert History.read("history") == events


def test_a_line_torn_by_a_kill_spoils_no_other(own_directory: Path) -> None:
    one, two = Vanished(t=1, process=A), Vanished(t=2, process=B)
    with Journal("history") as journal:
        journal.append(one)
        os.truncate("history", os.path.getsize("history") - 5)
        journal.append(two)
    assert History.read("history") == History.of(two, torn=1)
