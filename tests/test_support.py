"""The tools of the tests are themselves tested: one that cannot fail would hide everything behind it."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from scripts.ports import free_port
from tests.support import ROOT, Server, ledger_rows, wait_until, wait_until_async

APP = """
import os

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""


@pytest.fixture
def app_directory(own_directory: Path) -> Path:
    (own_directory / "pids.py").write_text(APP)
    return own_directory


def test_waiting_returns_what_the_predicate_returned_at_last() -> None:
    answers = iter([0, 0, 7])
    assert wait_until(lambda: next(answers)) == 7


def test_waiting_for_what_never_comes_fails_and_says_what_it_saw() -> None:
    with pytest.raises(AssertionError, match=r"did not come true within 0.05 s, last 0: .*test_support.py"):
        wait_until(lambda: 0, timeout=0.05)


async def test_async_waiting_takes_predicates_of_both_kinds() -> None:
    answers = iter([False, True])

    async def answer() -> bool:
        return next(answers)

    assert await wait_until_async(answer)
    assert await wait_until_async(lambda: "at once") == "at once"
    with pytest.raises(AssertionError, match="last None"):
        await wait_until_async(lambda: None, timeout=0.05)


def test_a_free_port_can_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        assert listener.getsockname()[1] < 32_000


def test_a_server_killed_and_started_again_keeps_its_address(app_directory: Path) -> None:
    with Server("pids:app", cwd=app_directory) as server:
        first = httpx.get(server.url).text
        assert int(first) == server.pid
        server.kill()
        assert server.wait() == -signal.SIGKILL
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url)
        server.start()
        assert httpx.get(server.url).text != first
    assert server.wait() != -signal.SIGKILL
    assert server.output().count("Started server process") == 2


def test_killing_a_server_leaves_none_of_its_workers(app_directory: Path) -> None:
    with Server("pids:app", cwd=app_directory, options=("--workers", "2")) as server:
        worker = int(httpx.get(server.url).text)
        assert worker != server.pid
        assert {worker, server.pid} <= set(server.pids())
        server.kill()
        assert server.pids() == []


def test_leaving_a_server_stops_workers_that_outlived_their_supervisor(app_directory: Path) -> None:
    with Server("pids:app", cwd=app_directory, options=("--workers", "2")) as server:
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        assert server.pids() != []
    assert server.pids() == []


def test_a_paused_server_answers_nothing_until_it_is_resumed(app_directory: Path) -> None:
    with Server("pids:app", cwd=app_directory) as server:
        server.pause()
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(server.url, timeout=0.2)
        server.resume()
        assert httpx.get(server.url).status_code == 200


def test_a_server_that_cannot_start_shows_what_it_printed(own_directory: Path) -> None:
    with pytest.raises(AssertionError, match='Could not import module "absent"'):
        Server("absent:app", cwd=own_directory).start()


def test_ledger_rows_reads_and_cannot_write(own_directory: Path) -> None:
    path = own_directory / "some.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE pairs (a, b)")
        connection.execute("INSERT INTO pairs VALUES (1, 'x'), (2, 'y')")
    connection.close()
    assert ledger_rows(path, "SELECT * FROM pairs WHERE a > ?", 1) == [{"a": 2, "b": "y"}]
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        ledger_rows(path, "DELETE FROM pairs RETURNING a")


@pytest.mark.parametrize("processes", [0, 1])
def test_a_skip_is_a_failure_in_ci(own_directory: Path, processes: int) -> None:
    samples = {
        "skips": "def test_it(): pytest.skip('no such device')",
        "skips_as_a_module": "pytest.skip('no such system', allow_module_level=True)",
        "passes": "def test_it(): pass",
        "fails_as_expected": "@pytest.mark.xfail\ndef test_it(): assert 0",
    }
    for name, source in samples.items():
        (own_directory / f"test_{name}.py").write_text(f"import pytest\n\n{source}\n")
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "tests.conftest", "-p", "xdist"]
    command += ["-n", str(processes), "--continue-on-collection-errors"]

    def outcome(ci: str) -> tuple[str, str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        run = subprocess.run(command, cwd=own_directory, env=environment, capture_output=True, text=True)
        return run.stdout, run.stdout.splitlines()[-1]

    if processes == 0:
        assert "1 passed, 2 skipped, 1 xfailed in" in outcome(ci="")[1]
    printed, last_line = outcome(ci="true")
    assert "1 failed, 1 passed, 1 xfailed, 1 error in" in last_line
    assert "no such device" in printed
    assert "no such system" in printed
