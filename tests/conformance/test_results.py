"""Results: what a reader, and a handle, learns of a record, whichever process ran it."""

import pytest

from tests.conformance.place import Place, call


@pytest.mark.short
def test_a_result_is_shown_to_who_may_read_and_nothing_to_others(place: Place, name: str) -> None:
    record = place.run("declared", name)
    assert (record["arguments"], record["result"]) == ({"name": name}, f"{name} is done")
    denied = place.client.get(f"/tasks/{record['id']}", headers={"Authorization": "Bearer nobody"})
    assert denied.status_code == 403
    assert name not in denied.text


def test_an_unknown_id_is_404(place: Place) -> None:
    assert place.client.get("/tasks/01a20c8a5edab51d000000000000000000").status_code == 404


@pytest.mark.short
def test_a_handle_gives_what_the_task_returned(place: Place, name: str) -> None:
    declared, plain, dropped = place.add(
        call("declared", name), call("plain", name), call("keeps_nothing", name)
    )
    assert place.get(f"/results/{declared}") == {"result": f"{name} is done"}
    assert place.get(f"/results/{plain}") == {"result": None}
    assert place.get(f"/results/{dropped}") == {"result": None}


def test_a_handle_raises_what_was_recorded_of_a_failure(place: Place, name: str) -> None:
    (failed,) = place.add(call("fails", name))
    assert place.get(f"/results/{failed}") == {
        "raised": "TaskFailed",
        "reason": "ValueError",
        "error": ["ValueError", f"{name} failed", ["KeyError: 'the-cause'"]],
    }


def test_a_handle_raises_that_a_call_was_cancelled(place: Place, name: str) -> None:
    (id,) = place.add(call("declared", name, delay=3600))
    assert place.cancel(id) == 200
    assert place.get(f"/results/{id}") == {"raised": "TaskCancelled", "reason": "Cancelled", "error": None}
