"""A real ledger, and faults of either kind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from shop import app, charge, log, ran, segundo

from segundo import Segundo
from segundo.errors import ConfigurationError
from segundo.testing import LedgerClock, LedgerFaults, Recorder
from segundo.testing.faults import Point


@pytest.fixture(params=["inline", "real"])
def client(request: pytest.FixtureRequest) -> Iterator[TestClient]:
    if request.param == "real":
        request.getfixturevalue("real_ledger")
    with TestClient(app) as client:
        yield client


def test_it_is_in_the_tests_own_folder(real_ledger: Path, tasks: Recorder, tmp_path: Path) -> None:
    with TestClient(app) as client:
        client.post("/calls/charge")
        tasks.drain()
        assert (tmp_path / "segundo.db").exists()
    assert real_ledger == tmp_path
    assert ran == [("charge", 5, "the shop's")]


def test_it_is_a_file_also_where_the_app_has_a_server(real_ledger: Path, tasks: Recorder) -> None:
    there = FastAPI()
    Segundo(there, ledger="postgresql://nobody@127.0.0.1:1/nothing")
    with TestClient(there):
        assert (real_ledger / "segundo.db").exists()


def test_it_keeps_records_over_a_restart(
    real_ledger: Path, ledger_clock: LedgerClock, tasks: Recorder
) -> None:
    with TestClient(app) as client:
        client.portal.call(segundo.submit, charge.options(delay=3600), 7)  # type: ignore[union-attr]  # inside with
    ledger_clock.move(hours=1)
    with TestClient(app):
        tasks.drain()
    assert ran == [("charge", 7, "the shop's")]


def test_it_needs_the_lifespan(real_ledger: Path) -> None:
    with pytest.raises(ConfigurationError, match="real_ledger needs the app's lifespan"):
        TestClient(app).post("/calls/charge")


def test_it_comes_before_the_app(request: pytest.FixtureRequest) -> None:
    with TestClient(app), pytest.raises(ConfigurationError, match="start it after real_ledger"):
        request.getfixturevalue("real_ledger")


def test_calls_are_not_held_and_crashes_not_played(
    real_ledger: Path, tasks: Recorder, ledger_faults: LedgerFaults
) -> None:
    with pytest.raises(RuntimeError, match="test mode"):
        tasks.hold()
    with pytest.raises(RuntimeError, match="test mode"), ledger_faults.at("crash after claim"):
        pass


def test_a_request_that_cannot_be_recorded_is_refused(
    client: TestClient, ledger_faults: LedgerFaults
) -> None:
    with ledger_faults.at("record", times=2):
        answers = [client.post("/calls/charge").status_code for _ in range(3)]
    assert answers == [503, 503, 200]


@pytest.mark.parametrize("point", ["claim", "settle"])
def test_what_could_not_be_claimed_or_stored_runs_once_all_the_same(
    client: TestClient, tasks: Recorder, ledger_faults: LedgerFaults, point: Point
) -> None:
    with ledger_faults.at(point):
        client.post("/calls/charge")
    tasks.drain()
    assert ran == [("charge", 5, "the shop's")]
    assert client.portal is not None
    (record,) = client.portal.call(segundo.ledger.select)
    assert (record.state, record.claim, record.failures) == ("succeeded", 1, 0)


def test_a_fault_is_over_after_its_with(
    client: TestClient, tasks: Recorder, ledger_faults: LedgerFaults
) -> None:
    with ledger_faults.at("record", times=None):
        assert client.post("/calls/charge").status_code == 503
    assert client.post("/calls/charge").status_code == 200


def test_a_fault_that_there_is_not_is_an_error(ledger_faults: LedgerFaults) -> None:
    with pytest.raises(ValueError, match="crash after claim"), ledger_faults.at("rain"):  # type: ignore[arg-type]  # it is wrong
        pass
    with pytest.raises(ValueError, match="about all records"), ledger_faults.at("record", of=charge):
        pass


def test_a_plain_call_that_crashed_is_not_started_again(tasks: Recorder, ledger_faults: LedgerFaults) -> None:
    tasks.raise_failures = False
    with TestClient(app) as client, ledger_faults.at("crash before settle", of=log):
        client.post("/calls/log")
    assert ran == [("log", "hello")]
    assert [failed.reason for failed in tasks.failed()] == ["WorkerLost"]


def test_the_clock_begins_anew_in_each_test(ledger_clock: LedgerClock) -> None:
    before = ledger_clock.now()
    ledger_clock.move(days=400)
    assert 399 < (ledger_clock.now() - before).days <= 400
    assert before.year < 2100
