"""`segundo doctor`: each thing that can be wrong is found and said, and nothing is changed by looking."""

import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import fastapi.routing
import pytest
from fastapi.dependencies.utils import solve_dependencies

from segundo.cli import doctor, surroundings
from segundo.cli.backlog import Backlog
from segundo.cli.doctor import file_system, findings, framework, sqlite
from segundo.cli.finding import Level
from segundo.cli.surroundings import variables
from segundo.executors.celery.routes import Routes
from segundo.ledger.mark import Mark
from segundo.ledger.moved import Shut, Welcome
from segundo.ledger.sqlite import SQLiteLedger
from segundo.ledger.sqlite.visitor import FileVisitor
from segundo.record import State
from segundo.shape import NEWEST_KNOWN
from tests.cli.ledgers import ME, ended, fill, held_elsewhere, one_of_each, queued, running
from tests.cli.terminal import segundo
from tests.ledger.suite import call, settlement
from tests.support import ledger_rows

LEDGER = Path("segundo.db")


def found() -> dict[str, tuple[Level, str]]:
    """What the doctor finds, by subject."""
    return {finding.subject: (finding.level, finding.text) for finding in findings(LEDGER.absolute())}


def bad() -> dict[str, Level]:
    """What is not as it should be."""
    return {subject: level for subject, (level, _) in found().items() if level is not Level.OK}


def change_by_hand(statement: str) -> None:
    with closing(sqlite3.connect(LEDGER, isolation_level=None)) as connection:
        connection.execute(statement)


def test_a_healthy_ledger_is_ok_line_by_line() -> None:
    fill(ended)
    with held_elsewhere(call(task="shop:charge")) as holder:
        answer = segundo("doctor")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert {line.split()[0] for line in lines if line[0] != " "} <= {"ok", "warning"}
    said = " ".join(answer.out.split())
    for words in (
        "a trial request is recorded before it is answered",
        *("file /", "schema 1, application id 0x5365676f", "WAL ", "permissions the owner's alone"),
        *(f"SQLite {sqlite3.sqlite_version}", "integrity SQLite's quick check finds nothing"),
        *(f"processes 1 alive: pid {holder.pid} on ", "durability full: a commit survives power loss"),
        *("1 running, 1 succeeded, 0 failed", "due nothing waits to be run now", ": shop:charge "),
    ):
        assert words in said


def test_the_installed_fastapi_is_tried_with_a_request() -> None:
    assert framework("0.165.0") == (
        Level.OK,
        "FastAPI",
        "0.165.0: a trial request is recorded before it is answered",
    )
    assert framework("0.999.1").text.endswith("the newest that all tests were run with")
    assert list(Path().iterdir()) == []


def test_a_fastapi_that_makes_its_own_background_tasks_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastapi.routing, "solve_dependencies", deaf)
    level, _, text = framework("0.999.1")
    assert level is Level.PROBLEM
    assert text == (
        "0.999.1: a call was not recorded before its request was answered. "
        f"The newest known to work is {NEWEST_KNOWN}"
    )


async def deaf(**given: Any) -> Any:
    """A FastAPI of tomorrow, whose parameter is still there and no longer used."""
    del given["background_tasks"]
    return await solve_dependencies(**given)


def test_a_problem_ends_it_with_1_and_names_the_way_out() -> None:
    fill(queued, clock=lambda: 1_000_000.0)
    answer = segundo("doctor")
    assert answer.code == 1
    assert "problem" in answer.out
    assert "start" in answer.out


def test_a_process_that_was_killed_is_seen_and_left_to_the_rescue() -> None:
    with held_elsewhere(call(), call()) as holder:
        assert "dead" not in found()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    before = ledger_rows(LEDGER), ledger_rows(LEDGER, "SELECT * FROM workers")
    report = found()
    assert report["processes"][0] is Level.WARNING
    assert report["dead"] == (
        Level.WARNING,
        f"pid {holder.pid} ended with 2 records in hand: start the app",
    )
    assert (ledger_rows(LEDGER), ledger_rows(LEDGER, "SELECT * FROM workers")) == before


def test_beside_a_living_process_the_dead_one_is_taken_care_of() -> None:
    fill(running)
    with held_elsewhere():
        level, text = found()["dead"]
    assert level is Level.WARNING
    assert "takes them over within seconds" in text


def test_the_durability_in_force_is_that_of_the_living_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUNDO_DURABILITY", "normal")
    with held_elsewhere():
        assert found()["durability"] == (Level.OK, "full: a commit survives power loss")
    monkeypatch.setenv("SEGUNDO_DURABILITY", "full")
    with held_elsewhere(durability="normal"):
        assert found()["durability"][0] is Level.WARNING
    assert found()["durability"][1].startswith("full (as set here")


def test_what_is_due_and_waits_is_a_warning_beside_processes_and_a_problem_without() -> None:
    fill(queued, clock=lambda: 1_000_000.0)
    with held_elsewhere():
        level, text = found()["due"]
    assert level is Level.WARNING
    assert "the oldest has waited for " in text
    assert found()["due"][0] is Level.PROBLEM


def test_what_is_due_later_is_not_late() -> None:
    async def story(ledger: SQLiteLedger) -> None:
        await queued(ledger, delay=1000.0)

    fill(story)
    assert found()["due"] == (Level.OK, "nothing waits to be run now")


def test_records_of_tasks_that_nobody_knows_are_counted_by_task() -> None:
    async def story(ledger: SQLiteLedger) -> None:
        for task in ("gone", "gone", "moved"):
            record = await running(ledger, task=task)
            put_off = settlement(record, State.QUEUED, reason="UnknownTask", counted=False, delay=60.0)
            await ledger.settle([put_off])
        await ended(ledger, State.FAILED, reason="UnknownTask", task="given up")

    fill(story)
    level, text = found()["unknown"]
    assert level is Level.WARNING
    assert "3 records" in text
    assert "gone (2), moved (1)" in text
    assert "given up" not in text


def test_others_may_not_read_the_files() -> None:
    one_of_each()
    assert found()["permissions"] == (Level.OK, "the owner's alone")
    LEDGER.chmod(0o640)
    level, text = found()["permissions"]
    assert level is Level.WARNING
    assert f"chmod 600 {LEDGER.absolute()}" in text


def test_a_damaged_file_is_a_problem() -> None:
    async def story(ledger: SQLiteLedger) -> None:
        await ledger.record([call(arguments=json.dumps({"n": "x" * 2000})) for _ in range(100)], owner="me")

    fill(story)
    content = bytearray(LEDGER.read_bytes())
    half = len(content) // 2
    content[half : half + 8192] = b"\xa5" * 8192
    LEDGER.write_bytes(content)
    level, text = found()["integrity"]
    assert level is Level.PROBLEM
    assert "restore a backup" in text
    assert segundo("doctor").code == 1


def test_a_ledger_of_a_newer_program_is_a_problem() -> None:
    one_of_each()
    change_by_hand("PRAGMA user_version = 99")
    assert "ledger" not in found()  # it says that programs of version 1 may open it
    change_by_hand("UPDATE meta SET value = '99' WHERE name = 'oldest_reader'")
    level, text = found()["ledger"]
    assert level is Level.PROBLEM
    assert "newer Segundo" in text


def test_a_missing_ledger_is_a_problem() -> None:
    assert bad() == {"ledger": Level.PROBLEM}
    assert segundo("doctor").code == 1


def test_records_in_the_hands_of_nobody_are_a_problem() -> None:
    fill(running)
    assert "owners" not in found()
    change_by_hand("DELETE FROM workers")
    level, text = found()["owners"]
    assert level is Level.PROBLEM
    assert "1 record in the hands of no known process" in text


def test_a_wal_that_is_not_merged_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LARGE_WAL", 4096)
    with held_elsewhere(call()):
        level, text = found()["WAL"]
    assert level is Level.WARNING
    assert "a long read keeps it" in text


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        *(("ext4", Level.OK), ("apfs", Level.OK), ("", Level.OK)),
        *(
            ("overlay", Level.WARNING),
            ("tmpfs", Level.WARNING),
            ("nfs4", Level.PROBLEM),
            ("cifs", Level.PROBLEM),
        ),
    ],
)
def test_the_file_system_is_judged_by_its_kind(kind: str, level: Level) -> None:
    finding = file_system(kind)
    assert finding.level is level
    assert kind in finding.text


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        *(((3, 40, 1), False), ((3, 44, 5), False), ((3, 44, 6), True), ((3, 45, 0), False)),
        *(
            ((3, 50, 6), False),
            ((3, 50, 7), True),
            ((3, 51, 2), False),
            ((3, 51, 3), True),
            ((3, 52, 0), True),
        ),
    ],
)
def test_an_older_sqlite_is_a_hint_for_who_commits_on_their_own(
    version: tuple[int, ...], fixed: bool
) -> None:
    finding = sqlite(version)
    assert finding.level is Level.OK
    assert ("code of your own" not in finding.text) is fixed


async def test_a_look_at_the_living_drops_no_lock_of_this_process(tmp_path: Path) -> None:
    """POSIX drops all of a process's locks on a file when it closes any descriptor of it."""
    ledger = SQLiteLedger(tmp_path / "segundo.db")
    await ledger.open()
    await ledger.join("me")
    try:
        for _ in range(2):
            with FileVisitor(ledger.path) as visitor:
                assert [worker.alive for worker in visitor.workers()] == [True]
        with held_elsewhere():
            with FileVisitor(ledger.path) as visitor:
                assert [worker.alive for worker in visitor.workers()] == [True, True]
            assert segundo("doctor").out.count("pid ") == 2  # as others see it
    finally:
        await ledger.close(dead=True)


@pytest.mark.parametrize(
    ("here", "says"),
    [(1090.0, "1 m ahead of the server's"), (940.0, "1 m behind the server's"), (1004.0, "")],
)
def test_a_machine_whose_clock_is_not_the_servers_is_told_how_far_and_what_comes_of_it(
    here: float, says: str
) -> None:
    level, _, text = doctor.clock(1000.0, here)
    assert level is (Level.WARNING if says else Level.OK)
    assert says in text
    assert ("run_at=" in text, "leases" in text) == (bool(says), bool(says))
    assert f"too {'late' if here > 1000 else 'early'}" in text or not says


# Around the ledger


def test_a_variable_that_is_no_setting_is_named_with_what_was_meant() -> None:
    fill(queued)
    answer = segundo("doctor", env={"SEGUNDO_LEGDER": "x", "SEGUNDO_GRACE": "5s"})
    assert answer.code == 0
    assert "did you mean SEGUNDO_LEDGER?" in answer.out
    assert [found.level for found in variables({"SEGUNDO_GRACE": "5s", "PATH": "x"})] == [Level.OK]


def test_a_broker_that_is_not_there_is_a_problem_and_its_password_is_not_shown() -> None:
    fill(queued)
    brokered = {"SEGUNDO_BROKER": "redis://:hush@127.0.0.1:1/0"}
    lines = [json.loads(line) for line in segundo("doctor", "--json", env=brokered).out.splitlines()]
    (broker,) = [line for line in lines if line["subject"] == "broker"]
    assert broker["level"] == "problem"
    assert "redis://:***@127.0.0.1:1/0 cannot be used" in broker["text"]
    assert segundo("doctor", env={"SEGUNDO_BROKER": "http://x"}).code == 1


def test_a_broker_on_another_host_and_a_ledger_in_a_file_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "PATIENCE", 0.1)
    routes = Routes({}, "redis://192.0.2.1")
    (apart, *_) = surroundings.surroundings(routes, Backlog(), in_a_file=True, app=False)
    assert apart.level is Level.WARNING
    assert "segundo move" in apart.text


def test_records_that_are_published_to_a_broker_which_is_not_known_here_are_named() -> None:
    async def published(ledger: SQLiteLedger) -> None:
        await queued(ledger, queue="emails")
        await ledger.publish(queues=None, but=(), window=10, limit=10, lease=60.0, lost=None)

    fill(published)
    level, text = found()["broker"]
    assert level is Level.WARNING
    assert "`segundo doctor main:app`" in text


def test_a_queue_that_waits_is_named_with_what_to_start() -> None:
    async def story(ledger: SQLiteLedger) -> None:
        await queued(ledger, queue="pages")

    fill(story, clock=lambda: 1_000_000.0)
    with held_elsewhere():
        level, text = found()["queue"]
    assert level is Level.WARNING
    assert text.startswith("pages: 1 record queued, the first due for ")
    assert text.endswith("Start `segundo worker main:app --queue pages`")
    assert "queue" not in found()  # nobody lives: `due` says what to do


APP = """
from fastapi import FastAPI
from segundo import Segundo

app = FastAPI()
Segundo(app, ledger="own.db", broker="redis://127.0.0.1:1/0")
"""


def test_an_app_that_is_named_says_where_its_ledger_and_its_broker_are() -> None:
    Path("main.py").write_text(APP)
    fill(queued, Path("own.db"))
    answer = segundo("doctor", "main:app", env={"SEGUNDO_LEDGER": "other.db"})
    for words in ("which sets ledger, broker itself", "own.db", "SEGUNDO_LEDGER is set here", ":1/0 cannot"):
        assert words in " ".join(answer.out.split())
    named = segundo("doctor", "--ledger", "segundo.db", env={"SEGUNDO_APP": "main:app"})
    assert "there is no ledger at" in named.out


def test_an_app_that_cannot_be_imported_is_a_problem_and_the_rest_is_looked_at() -> None:
    Path("main.py").write_text("1 / 0")
    fill(queued)
    answer = segundo("doctor", "main:app")
    assert answer.code == 1
    said = " ".join(answer.out.split())
    assert "main cannot be imported: ZeroDivisionError: division by zero" in said
    assert "1 queued" in said


def test_a_ledger_that_was_moved_and_one_into_which_a_move_is_not_finished() -> None:
    async def moved(ledger: SQLiteLedger) -> None:
        await ledger.do(Shut(ME, Mark("there.db", "moving:1", ended=False)))

    fill(moved)
    assert "are moving to there.db" in segundo("doctor").out
    fill(lambda ledger: ledger.do(Welcome("moving:1")), Path("new.db"))
    assert "is not finished" in segundo("doctor", "--ledger", "new.db").out
