"""kill -9 of what runs records. It happens as the place is started: a lease takes its time to run out."""

import pytest

from tests.conformance.place import PATIENCE, Place


def patience(place: Place) -> float:
    return place.combination.takeover + PATIENCE


@pytest.mark.short
def test_a_plain_function_whose_process_was_killed_is_not_started_again(place: Place) -> None:
    record = place.ended(place.wreck["plain"], patience(place))
    assert (record["state"], record["reason"], record["crashes"]) == ("failed", "WorkerLost", 1)
    assert (place.said("begins", "plain", "wreck"), place.said("ends", "plain", "wreck")) == (1, 0)


@pytest.mark.short
def test_a_declared_task_whose_process_was_killed_runs_again(place: Place) -> None:
    record = place.ended(place.wreck["declared"], patience(place))
    assert (record["state"], record["crashes"], record["failures"]) == ("succeeded", 1, 0)
    assert (place.said("begins", "declared", "wreck"), place.said("ends", "declared", "wreck")) == (2, 1)


@pytest.mark.short
def test_a_declared_task_without_a_crash_budget_is_not_started_again(place: Place) -> None:
    record = place.ended(place.wreck["once"], patience(place))
    assert (record["state"], record["reason"], record["crashes"]) == ("failed", "WorkerLost", 1)
    assert (place.said("begins", "once", "wreck"), place.said("ends", "once", "wreck")) == (1, 0)


@pytest.mark.short
def test_what_had_not_started_when_its_process_was_killed_is_run(place: Place) -> None:
    record = place.ended(place.wreck["queued"], patience(place))
    assert (record["state"], record["crashes"]) == ("succeeded", 0)
    assert place.said("declared", "wreck") == 1
