"""Calls: recorded with the request, run after it, given what was sent, kept no longer than they should be."""

import time
from collections.abc import Callable

import pytest

from tests.cli.terminal import Answer
from tests.conformance.place import Place, call


@pytest.mark.short
@pytest.mark.parametrize("endpoint", ["/calls", "/calls/in-a-thread"])
def test_plain_functions_and_declared_tasks_run_once(place: Place, name: str, endpoint: str) -> None:
    tasks = ("plain", "plain_async", "declared", "declared_async")
    ids = place.add(*(call(task, name) for task in tasks), to=endpoint)
    for task, id in zip(tasks, ids, strict=True):
        record = place.ended(id)
        assert (record["state"], record["task"], record["attempt"]) == ("succeeded", f"main:{task}", 1)
        assert record["result"] == (f"{name} is done" if task.startswith("declared") else None)
        assert place.said(task, name) == 1


@pytest.mark.short
def test_a_call_is_recorded_before_the_first_byte_and_runs_after_the_last(place: Place, name: str) -> None:
    url = f"/calls/streamed/{name}"
    with place.client.stream("POST", url, json=[call("declared", name)]) as answer:
        lines = answer.iter_lines()
        id = next(lines)
        assert (place.record(id)["state"], place.record(id)["waits_for"]) == ("waiting", ["request"])
        place.open(name)
        assert next(lines) == "the last"
    assert place.ended(id)["state"] == "succeeded"


@pytest.mark.short
def test_nothing_of_a_refused_request_is_recorded_or_run(place: Place, name: str) -> None:
    refused = place.client.post("/calls/refused", json=[call("plain", name), call("declared", name)])
    assert refused.status_code == 409
    assert place.run("plain", f"{name}-later")["state"] == "succeeded"
    for id in refused.json()["detail"]:
        assert place.client.get(f"/tasks/{id}").status_code == 404
    assert (place.said("plain", name), place.said("declared", name)) == (0, 0)


def test_plain_functions_of_a_request_run_in_the_order_added_and_a_failure_stops_none(
    place: Place, name: str
) -> None:
    ids = place.add(
        call("plain", f"{name}-1"), call("plain_fails", f"{name}-2"), call("plain_async", f"{name}-3")
    )
    records = [place.ended(id) for id in ids]
    assert [record["state"] for record in records] == ["succeeded", "failed", "succeeded"]
    spoken = [event[2] for event in place.events() if event[2:] and event[2].startswith(f"{name}-")]
    assert spoken == [f"{name}-1", f"{name}-2", f"{name}-3"]


def test_models_dataclasses_dates_and_bytes_come_and_go_as_they_are(place: Place) -> None:
    assert place.client.post("/values").json() is True


def test_context_variables_that_are_carried_are_there(place: Place, name: str) -> None:
    (id,) = place.client.post(f"/tenants/{name}").json()
    assert place.ended(id)["result"] == f"the-call of {name}"


def test_a_call_with_a_delay_is_not_run_before_its_time(place: Place, name: str) -> None:
    (delayed,) = place.add(call("declared", name, delay=0.5))
    record = place.ended(delayed)
    assert record["started_at"] >= record["run_at"] > record["created_at"]
    moment = time.time() + 0.5
    at = place.run("declared", f"{name}-at", run_at=moment)
    assert at["started_at"] >= at["run_at"]


@pytest.mark.short
def test_a_second_call_with_a_live_key_is_the_first(place: Place, name: str) -> None:
    first, second = place.add(call("until", name, key=name), call("until", name, key=name))
    answer = place.client.post("/calls/accepted", json=[call("until", name, key=name)])
    assert answer.status_code == 202
    assert (answer.headers["location"], answer.json()["id"]) == (f"/tasks/{first}", first)
    duplicate = place.record(second)
    assert (duplicate["state"], duplicate["reason"], duplicate["same_as"]) == (
        "cancelled",
        "Duplicate",
        first,
    )
    place.open(name)
    assert place.ended(first)["state"] == "succeeded"
    assert place.run("until", name, key=name)["state"] == "succeeded"  # the key is free again
    assert place.said("ends", "declared", name) == 2


def test_a_call_for_another_queue_is_run(place: Place, name: str) -> None:
    record = place.run("elsewhere", name)
    assert (record["queue"], record["state"]) == ("other", "succeeded")
    assert place.run("declared", name, queue="other")["queue"] == "other"


def test_arguments_that_are_not_kept_are_wiped_at_the_end(place: Place, name: str) -> None:
    (id,) = place.add(call("forgets", name))
    assert place.record(id)["arguments"] == {"name": name}
    place.open(name)
    record = place.ended(id)
    assert (record["arguments"], record["wiped"], record["result"]) == (None, True, "done")


def test_nobody_is_shown_a_secret_which_is_gone_at_the_end(
    place: Place, segundo: Callable[..., Answer], name: str
) -> None:
    account = {"email": "ada@example.com", "password": "hunter2"}
    (id,) = place.client.post(f"/accounts/{name}", json=account).json()
    record = place.record(id)
    assert (record["secret"], record["arguments"]) == (True, None)
    assert "hunter2" not in segundo("show", id).out
    place.open(name)
    record = place.ended(id)
    assert (record["result"], record["wiped"]) == (len("hunter2"), True)
    refused = segundo("retry", id)
    assert refused.code == 1
    assert "wiped" in refused.err
