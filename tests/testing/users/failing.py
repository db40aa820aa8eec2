"""Tests of which those that are named so fail, since a task of theirs does."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from shop import app, fail, ran, segundo

from segundo import TaskFailed
from segundo.testing import Recorder


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize(("name", "error"), [("fail", ArithmeticError), ("broken", LookupError)])
def test_a_failure_comes_out_of_the_clients_call(
    client: TestClient, name: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        client.post(f"/calls/{name}")


def test_a_client_that_raises_nothing_gets_its_answer(tasks: Recorder) -> None:
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.post("/calls/fail").status_code == 200
    assert len(tasks.failed()) == 1


def test_a_failure_in_process_comes_out_after_the_others_ran(client: TestClient) -> None:
    with pytest.raises(ZeroDivisionError):
        client.post("/in-process/failing")
    assert ran == ["after it"]


def test_fails_in_the_call(client: TestClient) -> None:
    client.post("/calls/fail")


def test_fails_by_what_was_submitted(client: TestClient) -> None:
    assert client.post("/submit/fail").status_code == 200


def test_fails_by_what_a_websocket_added(client: TestClient) -> None:
    with client.websocket_connect("/socket/fail") as socket:
        socket.send_text("bye")


def test_fails_on_a_real_ledger(real_ledger: Path, tasks: Recorder) -> None:
    with TestClient(app) as client:
        assert client.post("/calls/fail").status_code == 200
        tasks.drain()


def test_fails_on_a_real_ledger_without_a_drain(real_ledger: Path) -> None:
    with TestClient(app) as client:
        client.post("/calls/fail")


def test_a_test_may_be_about_failures(client: TestClient, tasks: Recorder) -> None:
    tasks.raise_failures = False
    client.post("/calls/fail")
    client.post("/submit/fail")
    assert len(tasks.failed()) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_who_awaits_the_result_is_told() -> None:
    handle = await segundo.submit(fail, "and told")
    with pytest.raises(TaskFailed):
        await handle.result()


def test_a_test_that_failed_before_has_one_failure_only(client: TestClient, tasks: Recorder) -> None:
    with pytest.raises(ArithmeticError):
        client.post("/calls/fail")
