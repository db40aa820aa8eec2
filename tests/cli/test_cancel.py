"""`segundo cancel` of what runs in a process of a server, or in a worker."""

import json
from pathlib import Path

import httpx
import pytest

from tests.cli.terminal import Worker, segundo
from tests.support import ROOT, Server, ledger_rows, wait_until

LEDGER, EVENTS = Path("segundo.db"), Path("events.txt")


@pytest.fixture(autouse=True)
def app(own_directory: Path) -> None:
    (own_directory / "main.py").write_text((ROOT / "tests" / "cli" / "app.py").read_text())


def said(verb: str) -> list[str]:
    """The pids of the processes that said it, in their order."""
    lines = EVENTS.read_text().splitlines() if EVENTS.exists() else []
    return [line.split()[0] for line in lines if line.split()[1] == verb]


def row() -> dict[str, object]:
    (found,) = ledger_rows(LEDGER)
    return found


def test_whichever_process_of_a_server_runs_it_hears_the_cancel_and_rolls_back() -> None:
    with Server("main:app", cwd=Path.cwd(), options=["--workers", "2"]) as server:
        assert httpx.post(f"{server.url}/rolls_back/never").status_code == 200
        wait_until(lambda: said("begins"))
        wait_until(lambda: json.loads(segundo("ls", "--json").out)["progress"])
        assert "1 of 4 (25%): waits for never" in segundo("show", row()["id"]).out
        assert "25% for" in segundo("ls").out
        answer = segundo("cancel", row()["id"])
        assert answer == (0, f"cancelled {row()['id']}\n", "")
        assert (row()["state"], row()["reason"]) == ("cancelled", "Cancelled")
        assert json.loads(str(row()["progress"]))["done"] == 1
        assert said("rolls-back") == said("begins")
        again = segundo("cancel", row()["id"])
        assert (again.code, again.err) == (1, f"segundo: {row()['id']} has ended already: cancelled\n")


def test_a_worker_hears_it_and_a_thread_that_does_not_look_runs_on() -> None:
    with Server("main:app", cwd=Path.cwd(), env={"SEGUNDO_CONCURRENCY": "0"}) as server:
        httpx.post(f"{server.url}/stubborn/go")
        with Worker("main:app") as worker:
            wait_until(lambda: said("begins") == [str(worker.pid)])
            answer = segundo("cancel", row()["id"])
            assert answer.out == f"asked {row()['id']} to stop: it is running, and has not ended yet\n"
            Path("go").touch()
            wait_until(lambda: row()["state"] == "succeeded")
            worker.terminate()
            assert worker.wait() == 0


def test_what_was_asked_to_end_by_a_process_that_is_killed_is_cancelled_by_the_next() -> None:
    with Server("main:app", cwd=Path.cwd()) as server:
        httpx.post(f"{server.url}/stubborn/never")
        wait_until(lambda: said("begins"))
        segundo("cancel", row()["id"])
        server.kill()
    with Worker("main:app"):
        wait_until(lambda: row()["state"] == "cancelled")
    assert (row()["reason"], row()["claim"]) == ("Cancelled", 1)
