"""`segundo worker`: it runs an app's records beside its servers and other workers, and stops well."""

import json
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from segundo.ledger.sqlite import SQLiteLedger
from segundo.record import Record
from tests.cli.ledgers import ME, fill
from tests.cli.terminal import Answer, Worker, segundo
from tests.ledger.suite import call
from tests.support import ROOT, Server, ledger_rows, wait_until

Inside = Callable[..., Answer]
LEDGER = Path("segundo.db")
EVENTS = Path("events.txt")


@pytest.fixture(autouse=True)
def app(own_directory: Path) -> None:
    (own_directory / "main.py").write_text((ROOT / "tests" / "cli" / "app.py").read_text())


def recorded(task: str, *arguments: dict[str, object], **fields: object) -> list[Record]:
    """Calls of a task of the app, recorded and due."""

    async def story(ledger: SQLiteLedger) -> list[Record]:
        calls = [
            call(task=f"main:{task}", arguments=json.dumps(each), crash_limit=2, **fields)
            for each in arguments
        ]
        return list(await ledger.record(calls, owner=ME))

    return fill(story)


def events() -> list[list[str]]:
    """What the app's processes said, each line as its words: pid, verb, and what else."""
    return [line.split() for line in EVENTS.read_text().splitlines()] if EVENTS.exists() else []


def said(*words: str) -> bool:
    return list(words) in [event[1:] for event in events()]


def begun(at_least: int = 0) -> list[str]:
    """The files that tasks have begun to wait for, in their order; none before there are so many."""
    files = [event[2] for event in events() if event[1] == "begins"]
    return files if len(files) >= at_least else []


def states() -> list[str]:
    return [row["state"] for row in ledger_rows(LEDGER)]


def done() -> bool:
    return set(states()) == {"succeeded"}


# Running


def test_a_worker_runs_what_is_recorded_within_the_apps_own_lifespan() -> None:
    Path("go").touch()
    recorded("until", {"file": "go"})
    recorded("plain", {"file": "go"})
    with Worker("main:app") as worker:
        wait_until(done)
        worker.terminate()
        assert worker.wait() == 0
    assert [event[1] for event in events()] == ["starts", *["begins", "ends"] * 2, "stops"]
    assert {event[0] for event in events()} == {str(worker.pid)}
    assert ledger_rows(LEDGER, "SELECT * FROM workers WHERE id <> 'me'") == []


def test_a_task_in_a_worker_reaches_what_the_lifespan_yielded() -> None:
    recorded("uses", {})
    with Worker("main:app"):
        wait_until(done)
    assert said("uses", "pool")


def test_a_worker_runs_the_records_of_a_raw_asgi_app() -> None:
    Path("raw.py").write_text(
        "from main import say, until\n"
        "from segundo import Segundo\n\n\n"
        "async def app(scope, receive, send):\n"
        "    raise NotImplementedError\n\n\n"
        "seg = Segundo(app)\n"
    )
    Path("go").touch()
    recorded("until", {"file": "go"})
    with Worker("raw:seg") as worker:
        wait_until(done)
        worker.terminate()
        assert worker.wait() == 0


def test_a_worker_takes_over_from_a_server_that_was_killed() -> None:
    with Server("main:app", cwd=Path.cwd()) as server:
        for path in ("until/go", "plain/now"):
            assert httpx.post(f"{server.url}/{path}").status_code == 200
        wait_until(lambda: said("begins", "go") and said("begins", "now"))
        server.kill()
        Path("go").touch()
        with Worker("main:app") as worker:
            wait_until(lambda: sorted(states()) == ["failed", "succeeded"])
    begun = [event for event in events() if event[1] == "begins"]
    assert [event[2] for event in begun if event[0] == str(worker.pid)] == ["go"]
    rows = {row["task"]: row for row in ledger_rows(LEDGER)}
    assert (rows["main:until"]["claim"], rows["main:until"]["crashes"]) == (2, 1)
    # A plain function is never started twice: it is listed, and can be retried by hand.
    assert rows["main:plain"]["reason"] == "WorkerLost"


def test_a_worker_beside_a_server_takes_over_when_it_is_killed() -> None:
    """Nobody starts anew: it is the worker's own look for the dead that finds it."""
    recorded("until", {"file": "busy"})
    with Worker("main:app", "--concurrency", "1") as worker:
        wait_until(lambda: said("begins", "busy"))
        with Server("main:app", cwd=Path.cwd()) as server:
            httpx.post(f"{server.url}/until/go")
            wait_until(lambda: said("begins", "go"))
            server.kill()
        Path("go").touch()
        Path("busy").touch()
        wait_until(done, 20)
    assert {event[0] for event in events() if event[1] == "ends"} == {str(worker.pid)}


def test_two_workers_share_a_ledger_and_each_record_is_run_by_one() -> None:
    recorded("meet", *({"number": number} for number in range(40)))
    with Worker("main:app", "--concurrency", "2") as one, Worker("main:app", "--concurrency", "2") as other:
        wait_until(done)
    ran = Counter(event[2] for event in events() if event[1] == "met")
    assert ran == {str(number): 1 for number in range(40)}
    assert {event[0] for event in events() if event[1] == "met"} == {str(one.pid), str(other.pid)}
    assert {row["claim"] for row in ledger_rows(LEDGER)} == {1}


def test_a_worker_runs_only_the_queues_that_it_is_told() -> None:
    Path("go").touch()
    for queue in ("emails", "other", "reports"):
        recorded("until", {"file": "go"}, queue=queue)
    with Worker("main:app", "--queue", "emails", "--queue", "reports"):
        wait_until(lambda: states().count("succeeded") == 2)
    assert [row["queue"] for row in ledger_rows(LEDGER) if row["state"] == "queued"] == ["other"]


def test_a_worker_runs_no_more_at_once_than_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUNDO_CONCURRENCY", "50")
    recorded("until", *({"file": f"go-{number}"} for number in range(4)))
    with Worker("main:app", "--concurrency", "1") as worker:
        for number in range(4):
            Path(wait_until(partial(begun, at_least=number + 1))[number]).touch()
        wait_until(done)
    assert [event[1] for event in events()] == ["starts", *["begins", "ends"] * 4]
    assert worker.said("concurrency = 1 (worker)")


def test_where_servers_only_record_a_worker_runs_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUNDO_CONCURRENCY", "0")
    Path("go").touch()
    with Server("main:app", cwd=Path.cwd()) as server:
        httpx.post(f"{server.url}/until/go")
        wait_until(lambda: states() == ["queued"])
        with Worker("main:app") as worker:
            wait_until(done)
    assert worker.said("concurrency = 64 (worker)")


@pytest.mark.parametrize("target", [["main:make", "--factory"], ["main:wrapped"]], ids=" ".join)
def test_an_app_may_come_from_a_factory_or_within_middleware(target: list[str]) -> None:
    Path("go").touch()
    recorded("until", {"file": "go"})
    with Worker(*target):
        wait_until(done)
    assert said("starts")


def test_a_worker_that_has_nothing_to_run_says_so_and_what_to_start_instead() -> None:
    brokered = {"SEGUNDO_BROKER": "redis://127.0.0.1:1"}
    answer = segundo("worker", "main:app", env=brokered)
    assert answer.code == 1
    assert "celery -A segundo.celery worker" in answer.err


# Stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_claims_no_more_and_lets_what_runs_end(number: signal.Signals) -> None:
    recorded("until", {"file": "go"}, {"file": "next"})
    with Worker("main:app", "--concurrency", "1") as worker:
        wait_until(lambda: said("begins", "go") or said("begins", "next"))
        worker.signal(number)
        wait_until(lambda: worker.said(f"{number.name}: claims no more; what runs has 30 s to end"))
        Path("go").touch()
        Path("next").touch()
        assert worker.wait() == 0
        assert worker.said("has stopped")
    assert sorted(states()) == ["queued", "succeeded"]
    assert [event[1] for event in events()] == ["starts", "begins", "ends", "stops"]


def test_what_does_not_end_within_the_grace_goes_to_the_next_worker_and_counts_no_crash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEGUNDO_GRACE", "0.1")
    recorded("until", {"file": "go"})
    recorded("stubborn", {"file": "go"})
    with Worker("main:app") as worker:
        wait_until(partial(begun, at_least=2))
        worker.terminate()
        assert worker.wait() == 0
    Path("go").touch()
    with Worker("main:app"):
        wait_until(done)
    assert [(row["claim"], row["crashes"], row["failures"]) for row in ledger_rows(LEDGER)] == [(2, 0, 0)] * 2


def test_a_second_signal_stops_at_once_and_counts_no_crash() -> None:
    recorded("stubborn", {"file": "go"})
    with Worker("main:app") as worker:
        wait_until(lambda: said("begins", "go"))
        worker.terminate()
        wait_until(lambda: worker.said("SIGTERM: claims no more"))
        worker.terminate()
        assert worker.wait() == 1
        assert worker.said("SIGTERM again: stops at once")
    assert not said("stops")
    assert states() == ["running"]
    Path("go").touch()
    with Worker("main:app"):
        wait_until(done)
    (row,) = ledger_rows(LEDGER)
    assert (row["claim"], row["crashes"]) == (2, 0)


def test_a_task_that_blocks_the_event_loop_does_not_keep_a_second_signal_waiting() -> None:
    recorded("blocking", {"file": "never"})
    with Worker("main:app") as worker:
        wait_until(lambda: said("begins", "never"))
        worker.terminate()
        worker.signal(signal.SIGINT)
        assert worker.wait() == 1
    assert not said("stops")


# What can be wrong


BROKEN = {
    "absent": ("absent:app", "there is no module 'absent' in "),
    "absent package": ("absent.main:app", "there is no module 'absent' in "),
    "no colon": ("main", "'main' names no app: say module:attribute, as in main:app"),
    "no attribute": ("main:application", "the module main has no 'application'"),
    "no app": ("main:EVENTS", "main:EVENTS is no app with a Segundo"),
    "unmarked factory": ("main:make", "say --factory"),
}


@pytest.mark.parametrize(("target", "words"), BROKEN.values(), ids=BROKEN)
def test_an_app_that_cannot_be_found_is_one_line_of_error(target: str, words: str, inside: Inside) -> None:
    answer = inside("worker", target)
    assert (answer.code, answer.out) == (1, "")
    assert words in answer.err
    assert "Traceback" not in answer.err


APP = """
import os, signal
from contextlib import asynccontextmanager
from fastapi import FastAPI
from segundo import Segundo

@asynccontextmanager
async def lifespan(app):
    {start_up}
    yield
    raise ValueError("will not close")

app = FastAPI(lifespan=lifespan)
Segundo(app)
"""
RAISES = {
    "at import": ("import not_there", "app", "bad cannot be imported", "not_there"),
    "its syntax": ("x = (", "app", "bad cannot be imported", "was never closed"),
    "in a factory": ("def make(): 1 / 0", "make", "bad:make() did not make the app", "division by zero"),
    "at start-up": (
        APP.format(start_up="raise ValueError('no database')"),
        *("app", "bad:app did not start", "no database"),
    ),
    "at shutdown": (
        APP.format(start_up="os.kill(os.getpid(), signal.SIGTERM)"),
        *("app", "bad:app did not stop", "will not close"),
    ),
}


@pytest.mark.parametrize(("code", "name", "what", "why"), RAISES.values(), ids=RAISES)
def test_what_the_apps_own_code_raises_is_shown_from_its_first_line_on(
    code: str, name: str, what: str, why: str
) -> None:
    Path("bad.py").write_text(code)
    answer = segundo("worker", f"bad:{name}", *(["--factory"] if name == "make" else []))
    error = answer.err[answer.err.index("segundo: ") :].splitlines()
    assert answer.code == 1
    assert error[0] == f"segundo: {what}:"
    assert why in error[-1]
    frames = [line for line in error if line.startswith("  File ")]
    assert frames[0].startswith(f'  File "{Path("bad.py").absolute()}"')
    assert [frame for frame in frames if "segundo/cli" in frame] == []


def test_an_app_that_knows_no_lifespan_is_refused() -> None:
    deaf = "class Deaf(main.Middleware):\n    async def __call__(self, *_): pass\n"
    Path("deaf.py").write_text(f"import main\n{deaf}app = Deaf(main.app)\n")
    answer = segundo("worker", "deaf:app")
    assert answer.code == 1
    assert answer.err == "segundo: the app ended in lifespan.startup\n"


def test_a_ledger_that_cannot_be_opened_is_one_line_of_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUNDO_LEDGER", "/nowhere/segundo.db")
    answer = segundo("worker", "main:app")
    assert answer.code == 1
    assert "the folder /nowhere does not exist" in answer.err
    assert "Traceback" not in answer.err


def test_a_ledger_in_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUNDO_LEDGER", "memory://")
    answer = segundo("worker", "main:app")
    assert answer.code == 1
    assert "a worker would find nothing in it" in answer.err
