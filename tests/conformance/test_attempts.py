"""Attempts: tried again, given up, timed out; with dependencies and child calls; by hand."""

from collections.abc import Callable
from datetime import datetime

import pytest

from tests.cli.terminal import Answer
from tests.conformance.place import Place, Seen


def seconds(record: Seen, begin: str, end: str) -> float:
    return (datetime.fromisoformat(record[end]) - datetime.fromisoformat(record[begin])).total_seconds()


@pytest.mark.short
def test_a_failed_attempt_is_followed_by_others_until_one_succeeds(place: Place, name: str) -> None:
    record = place.run("third_time", name)
    assert (record["state"], record["result"], record["attempt"], record["failures"]) == (
        "succeeded",
        3,
        3,
        2,
    )
    assert place.words("third_time", name) == [["1"], ["2"], ["3"]]
    assert seconds(record, "created_at", "started_at") >= 0.4  # two waits of 0.2


def test_a_task_that_says_when_is_tried_again_then(place: Place, name: str) -> None:
    record = place.run("later", name)
    assert (record["state"], record["result"], record["failures"]) == ("succeeded", 2, 1)
    assert seconds(record, "created_at", "started_at") >= 0.3


@pytest.mark.short
def test_what_fails_as_often_as_it_may_has_failed_with_its_error(place: Place, name: str) -> None:
    record = place.run("fails", name)
    assert (record["state"], record["reason"]) == ("failed", "ValueError")
    assert (record["attempt"], record["failures"], record["crashes"]) == (2, 2, 0)
    error = record["error"]
    assert (error["type"], error["message"]) == ("ValueError", f"{name} failed")
    assert [(cause["type"], cause["message"]) for cause in error["causes"]] == [("KeyError", "'the-cause'")]
    assert error["traceback"].splitlines()[0] == "Traceback (most recent call last):"
    assert "main.py" in error["traceback"]
    assert place.words("fails", name) == [["1"], ["2"]]


def test_what_is_given_up_on_is_not_tried_again(place: Place, name: str) -> None:
    record = place.run("gives_up", name)
    assert (record["state"], record["reason"], record["failures"]) == ("failed", "Refused", 1)
    assert record["error"]["type"] == "main.Refused"
    assert place.said("gives_up", name) == 1


def test_an_async_def_past_its_timeout_is_cancelled(place: Place, name: str) -> None:
    record = place.run("too_long", name)
    assert (record["state"], record["reason"]) == ("failed", "TimedOut")
    assert place.said("cleaned", name) == 1


def test_a_def_past_its_timeout_is_told_and_its_result_dropped(place: Place, name: str) -> None:
    record = place.run("too_long_in_a_thread", name)
    assert (record["state"], record["reason"], record["result"]) == ("failed", "TimedOut", None)
    assert place.said("told", name) == 1


def test_a_timeout_is_a_failure_that_may_be_tried_again(place: Place, name: str) -> None:
    record = place.run("slow_at_first", name)
    assert (record["state"], record["result"], record["failures"]) == ("succeeded", 2, 1)


def test_a_result_that_cannot_be_kept_is_a_failure_that_is_not_tried_again(place: Place, name: str) -> None:
    record = place.run("returns_what_cannot_be_kept", name)
    assert (record["state"], record["reason"], record["attempt"]) == ("failed", "ResultError", 1)
    assert place.said("returns_what_cannot_be_kept", name) == 1


@pytest.mark.short
def test_dependencies_of_a_task_are_opened_and_closed_around_it_in_the_apps_lifespan(
    place: Place, name: str
) -> None:
    record = place.run("injected", name)
    opened = f"connection-of-{record['id']}"
    assert record["result"] == f"{name}, another clock"  # by app.dependency_overrides
    assert place.words("opens", opened) == [["the-pool"]]
    assert (place.said("commits", opened), place.words("rolls-back", opened)) == (1, [])


def test_dependencies_of_a_task_that_fails_see_why_and_roll_back(place: Place, name: str) -> None:
    record = place.run("injected_in_a_thread", name)
    opened = f"connection-of-{record['id']}"
    assert (record["state"], record["reason"]) == ("failed", "LookupError")
    assert (place.said("commits", opened), place.words("rolls-back", opened)) == (0, [["LookupError"]])


@pytest.mark.short
def test_calls_that_a_task_adds_are_recorded_with_its_success(place: Place, name: str) -> None:
    record = place.run("parent", name)
    assert (record["state"], record["attempt"]) == ("succeeded", 2)
    first, second = (place.ended(id) for id in record["result"])
    assert first["result"] == f"{name}-first-of-attempt-2 is done"
    assert second["result"] == f"{name}-second is done"
    assert first["finished_at"] <= second["started_at"]
    assert place.said("declared", f"{name}-first-of-attempt-1") == 0


@pytest.mark.short
def test_what_has_failed_is_run_again_by_hand(
    place: Place, segundo: Callable[..., Answer], name: str
) -> None:
    failed = place.run("fails_until", name)
    assert (failed["state"], failed["reason"]) == ("failed", "FileNotFoundError")
    place.open(name)
    again = segundo("retry", failed["id"])
    assert again.code == 0, again
    record = place.ended(again.out.strip())
    assert (record["state"], record["result"]) == ("succeeded", f"{name} was there")
    assert (record["retry_of"], record["key"]) == (failed["id"], f"retry:{failed['id']}")
    assert place.record(failed["id"]) == failed  # it stays as it was
