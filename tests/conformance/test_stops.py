"""SIGTERM: a stop in good order, and a start after it."""

import signal

import pytest

from tests.conformance.place import PATIENCE, Place, call

LEASE = 60.0  # seconds: a message that went down with the worker is published again
IN_GOOD_ORDER = (0, -signal.SIGTERM)  # uvicorn ends as it was told to


@pytest.mark.short
def test_a_stop_lets_end_what_does_within_the_grace_and_the_rest_is_run_after_the_next_start(
    place: Place, name: str
) -> None:
    ends, stays, later = place.add(
        call("until", f"{name}-ends"), call("until_async", name), call("declared", f"{name}-later", delay=1)
    )
    place.until_said("begins", "declared", f"{name}-ends")
    place.until_said("begins", "async", name)
    place.runner.terminate()
    place.open(f"{name}-ends")
    assert place.runner.wait() in IN_GOOD_ORDER
    place.runner.start()
    place.open(name)
    records = [place.ended(id, LEASE + PATIENCE) for id in (ends, stays, later)]
    assert [(one["state"], one["crashes"], one["failures"]) for one in records] == [("succeeded", 0, 0)] * 3
    assert place.said("begins", "declared", f"{name}-ends") == 1
    assert (place.said("begins", "async", name), place.said("ends", "async", name)) == (2, 1)
