"""Order: what waits for others, and what comes first where more waits than can run."""

import pytest

from tests.conformance.place import SLOTS, Place, call
from tests.support import wait_until


@pytest.mark.short
def test_a_call_runs_after_all_that_it_waits_for(place: Place, name: str) -> None:
    (older,) = place.add(call("until", f"{name}-older"))
    ids = place.add(
        call("until", f"{name}-new"),
        call("declared", name, after=[0, older]),
        call("declared_async", name, after=[1]),
    )
    place.until_said("begins", "declared", f"{name}-new")
    assert set(place.record(ids[1])["waits_for"]) == {older, ids[0]}
    place.open(f"{name}-new")
    assert place.ended(ids[0])["state"] == "succeeded"
    assert (place.record(ids[1])["state"], place.record(ids[1])["waits_for"]) == ("waiting", [older])
    place.open(f"{name}-older")
    last = place.ended(ids[2])
    assert last["state"] == "succeeded"
    assert place.record(older)["finished_at"] <= place.record(ids[1])["started_at"]
    assert place.record(ids[1])["finished_at"] <= last["started_at"]


def test_what_waits_for_a_failure_is_cancelled_or_runs_as_it_says(place: Place, name: str) -> None:
    failed, cancelled, behind, runs = place.add(
        call("gives_up", name),
        call("declared", f"{name}-cancelled", after=[0]),
        call("declared", f"{name}-behind", after=[1]),
        call("declared", f"{name}-runs", after=[0], on_failure="run"),
    )
    assert place.ended(runs)["state"] == "succeeded"
    for id, before in ((cancelled, failed), (behind, cancelled)):
        record = place.ended(id)
        assert (record["state"], record["reason"]) == ("cancelled", "PredecessorFailed")
        assert before in record["error"]["message"]
    assert (place.said("declared", f"{name}-cancelled"), place.said("declared", f"{name}-behind")) == (0, 0)


def test_the_most_urgent_comes_first_then_the_first_recorded(place: Place, name: str) -> None:
    gates = [f"{name}-gate-{number}" for number in range(SLOTS)]
    busy = place.add(*(call("until", gate) for gate in gates))
    for gate in gates:
        place.until_said("begins", "declared", gate)
    ranks = [0, 5, 9, 1, 8, 5, 9, 7, 6]
    ids = [place.add(call("ranked", name, number, priority=rank))[0] for number, rank in enumerate(ranks)]
    wait_until(lambda: {place.record(id)["state"] for id in ids} == {"queued"})
    if place.combination.broker is not None:
        wait_until(lambda: place.in_broker() == len(ids))
    place.open(gates[0])  # one slot, for all of them
    for id in ids:
        assert place.ended(id)["state"] == "succeeded"
    for gate in gates:
        place.open(gate)
    for id in busy:
        place.ended(id)
    spoken = [int(words[0]) for words in place.words("ranked", name)]
    assert spoken == sorted(range(len(ranks)), key=lambda number: (-ranks[number], number))
