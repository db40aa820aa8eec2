"""What the recorder sees, and how it compares."""

from collections.abc import Iterator
from unittest.mock import ANY

import pytest
from fastapi.testclient import TestClient
from shop import Order, add_in_process, app, charge, fail, log, parent, ran, send

from segundo.testing import LedgerFaults, Recorder

ORDER = Order(number=1, lines=["nuts"])


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def test_arguments_are_compared_by_their_parameters(client: TestClient, tasks: Recorder) -> None:
    client.post("/send")
    assert tasks.called(send)
    assert tasks.called(send, "ada", order=ORDER)
    assert tasks.called(send, ANY, ORDER, "bob")
    assert tasks.called(send, "ada", ORDER, "bob", "eve", urgent=True, sender="shop")
    assert tasks.called(send, sender=ANY)
    assert not tasks.called(send, "bob")
    assert not tasks.called(send, "ada", ORDER, "eve")
    assert not tasks.called(send, order=Order(number=2))
    assert not tasks.called(send, urgent=False)
    assert not tasks.called(send, receiver=ANY)


def test_defaults_are_filled_in_and_what_is_injected_is_left_out(client: TestClient, tasks: Recorder) -> None:
    client.post("/calls/log")
    client.post("/calls/charge")
    assert tasks.called(log, "hello", level=1)
    assert [call.arguments for call in tasks.calls] == [{"line": "hello", "level": 1}, {"amount": 5}]


def test_a_task_with_options_is_the_task(client: TestClient, tasks: Recorder) -> None:
    client.post("/calls/charge")
    assert tasks.called(charge.options(delay=5), 5)


def test_an_argument_that_there_is_not_is_an_error(tasks: Recorder) -> None:
    says = r"called\(…\) of charge\(amount: int.*got an unexpected keyword argument 'amonut'"
    with pytest.raises(TypeError, match=says):
        tasks.called(charge, amonut=5)


def test_calls_of_tasks_and_of_submit_are_seen(client: TestClient, tasks: Recorder) -> None:
    client.post("/submit/parent")
    assert tasks.called(parent)
    assert tasks.called(charge, amount=3)
    assert ("charge", 3, "the shop's") in ran


def test_what_runs_in_process_is_seen_and_cannot_be_held(client: TestClient, tasks: Recorder) -> None:
    tasks.hold()
    client.post("/in-process")
    (call,) = tasks.calls
    assert (call.id, call.arguments) == (None, {"line": "here", "level": 1})
    assert not tasks.called(add_in_process)
    assert ran == ["here"]


def test_a_refused_request_has_made_no_call(
    client: TestClient, tasks: Recorder, ledger_faults: LedgerFaults
) -> None:
    with ledger_faults.at("record"):
        assert client.post("/calls/charge").status_code == 503
    assert client.post("/calls/charge").status_code == 200
    assert len(tasks.calls) == 1


def test_the_recorder_shows_what_it_has_seen(client: TestClient, tasks: Recorder) -> None:
    assert repr(tasks) == "<Recorder: no calls>"
    client.post("/calls/charge")
    assert repr(tasks) == "<Recorder: shop:charge(amount=5)>"


def test_what_was_looked_at_fails_no_test(client: TestClient, tasks: Recorder) -> None:
    client.post("/submit/fail")
    (failed,) = tasks.failed()
    assert (failed.task, failed.reason, str(failed.error)) == ("shop:fail", "ArithmeticError", "of itself")
    assert tasks.called(fail, "of itself")[0].id == failed.id
