"""The demo keeps its promises on a small load, and its judgement sees every way of breaking one."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.demo.content import SignUp, Upload
from examples.demo.engine import ENGINES
from examples.demo.evidence import Evidence
from examples.demo.load import Answer
from examples.demo.verdict import Verdict, judge
from tests.support import ROOT, wait_until

COMMAND = [sys.executable, "-m", "examples.demo"]
ZEROS = ("Lost", "Plain functions run twice", "Refused but run")

ADA = SignUp(id="request-1", name="Ada", email="ada@example.com")
FILE = Upload(id="request-2", filename="a.txt", content=b"a", facts={"sha256": "ca97", "size": 1})
ANSWERS = (
    Answer(ADA, status=202, body={"welcome": "email-1", "audit": "audit-1"}),
    Answer(FILE, status=202, body={"id": "report-1"}),
)


def count(output: str, row: str) -> int:
    """The figure in a row of the printed table."""
    (found,) = re.findall(rf"^ *{re.escape(row)} +(\d+) ", output, re.MULTILINE)
    return int(found)


def demo_environment(folder: Path, **settings: str) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder), "COLUMNS": "80", **settings}


@pytest.mark.timeout(150)
def test_the_demo_loses_nothing_under_a_kill_and_cleans_up(tmp_path: Path) -> None:
    environment = demo_environment(tmp_path, DEMO_REQUESTS="60", DEMO_KILLS="1", SERVE="")
    run = subprocess.run(COMMAND, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=140)
    assert run.returncode == 0, run.stdout + run.stderr
    assert {row: count(run.stdout, row) for row in ZEROS} == dict.fromkeys(ZEROS, 0)
    assert count(run.stdout, "Requests sent") == 60
    assert count(run.stdout, "Kills") == 1
    assert count(run.stdout, "arrived") == count(run.stdout, "Emails promised") > 0
    assert count(run.stdout, "processed") == count(run.stdout, "Files promised") > 0
    assert max(map(len, run.stdout.splitlines())) <= 80
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """PostgreSQL's user is another than root, and comes into none of pytest's folders."""
    folder = Path(tempfile.mkdtemp(prefix="segundo-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.celery
@pytest.mark.timeout(240)
def test_on_celery_it_loses_nothing_when_workers_broker_and_app_are_killed(open_folder: Path) -> None:
    for service in ENGINES["redis"].services:
        if service.program() is None:
            pytest.skip(f"{service.name} is not installed: `make services`")
    settings = {"ENGINE": "redis", "DEMO_REQUESTS": "80", "DEMO_KILLS": "3", "SERVE": ""}
    environment = demo_environment(open_folder, **settings)
    run = subprocess.run(COMMAND, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=230)
    assert run.returncode == 0, run.stdout + run.stderr
    assert {row: count(run.stdout, row) for row in ZEROS} == dict.fromkeys(ZEROS, 0)
    assert (count(run.stdout, "Kills"), count(run.stdout, "of the app")) == (3, 1)
    assert count(run.stdout, "arrived") == count(run.stdout, "Emails promised") > 0
    assert count(run.stdout, "processed") == count(run.stdout, "Files promised") > 0
    assert list(open_folder.iterdir()) == []


def test_an_engine_that_there_is_not_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    environment = demo_environment(tmp_path, ENGINE="kafka")
    run = subprocess.run(COMMAND, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=50)
    assert (run.returncode, run.stdout) == (1, "")
    assert "ENGINE=kafka" in run.stderr
    assert all(engine in run.stderr for engine in ENGINES)
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.timeout(150)
def test_a_served_demo_prints_addresses_that_answer_until_it_is_interrupted(tmp_path: Path) -> None:
    environment = demo_environment(tmp_path, DEMO_REQUESTS="20", DEMO_KILLS="0", SERVE="1")
    output = tmp_path / "output"
    (tmp_path / "run").mkdir()
    with output.open("wb") as file:
        environment["TMPDIR"] = str(tmp_path / "run")
        demo = subprocess.Popen(COMMAND, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: demo.poll() is not None or "Ctrl+C" in output.read_text(), timeout=120)
        docs, record, mailbox = re.findall(r"http://\S+", output.read_text().partition("The app:")[2])
        assert httpx.get(docs, trust_env=False).status_code == 200
        assert httpx.get(record, trust_env=False).json()["state"] == "succeeded"
        assert "person-0@example.com" in httpx.get(mailbox, trust_env=False).text
        demo.send_signal(signal.SIGINT)
        assert demo.wait(30) == 0
    finally:
        demo.kill()
        demo.wait()
    assert list((tmp_path / "run").iterdir()) == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(docs, trust_env=False)


def evidence(**changed: Any) -> Evidence:
    """What is found after a run in which all went well, but for what is `changed`."""
    found: dict[str, Any] = {
        "records": {id: {"state": "succeeded", "reason": None, "crashes": 0} for id in RECORDS},
        "emails": Counter({"ada@example.com": 1}),
        "reports": {"ca97": FILE.facts},
        "audited": Counter({"request-1": 1}),
    }
    return Evidence(**(found | changed))


RECORDS = ("email-1", "audit-1", "report-1")


def records_with(id: str, state: str, reason: str | None = None) -> Mapping[str, Mapping[str, Any]]:
    return {**evidence().records, id: {"state": state, "reason": reason, "crashes": 0}}


def lost(verdict: Verdict) -> list[str]:
    assert verdict.holds == (not verdict.lost)
    return [promise.id for promise in verdict.lost]


def test_a_run_in_which_all_went_well_holds() -> None:
    verdict = judge(ANSWERS, evidence())
    assert verdict.holds
    assert [promise.id for promise in verdict.promises] == list(RECORDS)


@pytest.mark.parametrize("id", RECORDS)
def test_a_call_that_is_not_in_the_ledger_is_lost(id: str) -> None:
    records = {other: record for other, record in evidence().records.items() if other != id}
    assert lost(judge(ANSWERS, evidence(records=records))) == [id]


@pytest.mark.parametrize("state", ["waiting", "queued", "running", "failed", "cancelled"])
@pytest.mark.parametrize("id", RECORDS)
def test_a_call_whose_record_does_not_end_well_is_lost(id: str, state: str) -> None:
    assert lost(judge(ANSWERS, evidence(records=records_with(id, state)))) == [id]


@pytest.mark.parametrize(
    ("id", "missing"),
    [
        ("email-1", {"emails": Counter[str]()}),
        ("audit-1", {"audited": Counter[str]()}),
        ("report-1", {"reports": {}}),
        ("report-1", {"reports": {"ca97": {**FILE.facts, "size": 2}}}),
    ],
)
def test_a_call_that_only_the_ledger_says_was_done_is_lost(id: str, missing: dict[str, Any]) -> None:
    assert lost(judge(ANSWERS, evidence(**missing))) == [id]


@pytest.mark.parametrize("lines", [0, 1])
def test_a_plain_call_that_was_running_at_a_kill_is_listed_and_not_lost(lines: int) -> None:
    records = records_with("audit-1", "failed", "WorkerLost")
    verdict = judge(ANSWERS, evidence(records=records, audited=Counter({"request-1": lines})))
    assert verdict.holds
    assert [promise.id for promise in verdict.promises if promise.stopped_by_a_kill] == ["audit-1"]


@pytest.mark.parametrize("id", ["email-1", "report-1"])
def test_a_declared_call_that_a_kill_ended_for_good_is_lost(id: str) -> None:
    assert lost(judge(ANSWERS, evidence(records=records_with(id, "failed", "WorkerLost")))) == [id]


@pytest.mark.parametrize("request_id", ["request-1", "of a request without a response"])
def test_a_plain_function_that_ran_twice_breaks_the_promise(request_id: str) -> None:
    verdict = judge(ANSWERS, evidence(audited=Counter({"request-1": 1, request_id: 2})))
    assert (verdict.holds, verdict.twice) == (False, [request_id])


def test_an_email_that_arrived_twice_is_allowed() -> None:
    assert judge(ANSWERS, evidence(emails=Counter({"ada@example.com": 2}))).holds


@pytest.mark.parametrize("request_", [ADA, FILE])
def test_a_refused_request_that_ran_breaks_the_promise(request_: SignUp | Upload) -> None:
    refused = Answer(request_, status=503)
    verdict = judge([refused], evidence())
    assert (verdict.holds, verdict.refused_but_ran) == (False, [refused])


def test_a_request_without_a_response_promises_nothing() -> None:
    nothing = Evidence(records={}, emails=Counter(), reports={}, audited=Counter())
    verdict = judge([Answer(ADA, status=None), Answer(FILE, status=None)], nothing)
    assert (verdict.holds, list(verdict.promises)) == (True, [])
