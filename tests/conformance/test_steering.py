"""Steering: cancels of what waits and of what runs; progress; events."""

from collections.abc import Callable

import pytest

from tests.cli.terminal import Answer
from tests.conformance.place import Place, call
from tests.support import wait_until


@pytest.mark.short
def test_what_does_not_run_yet_is_cancelled_at_once_and_never_runs(place: Place, name: str) -> None:
    delayed, behind = place.add(call("declared", name, delay=0.3), call("declared", f"{name}-2", after=[0]))
    assert place.cancel(delayed) == 200
    record = place.record(delayed)
    assert (record["state"], record["reason"], record["started_at"]) == ("cancelled", "Cancelled", None)
    assert place.record(behind)["reason"] == "PredecessorFailed"
    assert place.cancel(delayed) == 200
    assert place.run("declared", f"{name}-3", delay=0.4)["state"] == "succeeded"  # its time is over
    assert place.said("declared", name) == 0


@pytest.mark.short
def test_an_async_def_that_runs_is_cancelled_from_a_terminal_and_its_dependency_rolls_back(
    place: Place, segundo: Callable[..., Answer], name: str
) -> None:
    (id,) = place.add(call("forever", name))
    place.until_said("begins", "forever", name)
    assert segundo("cancel", id).code == 0
    record = place.ended(id)
    assert (record["state"], record["reason"]) == ("cancelled", "Cancelled")
    assert place.words("rolls-back", f"connection-of-{id}") == [["CancelledError"]]


@pytest.mark.short
def test_a_def_that_runs_sees_its_cancel(place: Place, name: str) -> None:
    (id,) = place.add(call("forever_in_a_thread", name))
    place.until_said("begins", "forever_in_a_thread", name)
    assert place.cancel(id) == 202
    record = place.ended(id)
    assert (record["state"], record["reason"], record["cancel_requested"]) == ("cancelled", "Cancelled", True)


def test_a_def_that_goes_on_all_the_same_is_what_it_returns(place: Place, name: str) -> None:
    (id,) = place.add(call("ends_late", name))
    place.until_said("begins", "ends_late", name)
    assert place.cancel(id) == 202
    assert place.ended(id)["result"] == "all the same"
    assert place.cancel(id) == 409


@pytest.mark.short
def test_progress_reaches_the_record_and_the_last_of_it_always(place: Place, name: str) -> None:
    (id,) = place.add(call("reports", name))
    first = wait_until(lambda: place.record(id)["progress"])
    assert first == {"done": 1, "total": 3, "message": f"{name} begins"}
    place.open(name)
    assert place.ended(id)["progress"] == {"done": 3, "total": 3, "message": f"{name} at 3"}


@pytest.mark.short
def test_events_tell_each_state_and_end_with_the_outcome(place: Place, name: str) -> None:
    (id,) = place.add(call("until", name))
    place.until_said("begins", "declared", name)
    with place.events_of(id) as events:
        state, record = next(events)
        assert (state, record["id"], record["state"]) == ("running", id, "running")
        place.open(name)
        *_, (state, record) = events
    assert (state, record["result"]) == ("succeeded", name)
