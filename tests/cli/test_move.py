"""`segundo move`, as it is typed; what a move does is tried in tests/ledger/test_moving.py."""

import signal
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from segundo.record import State
from tests.cli.ledgers import call_many, fill, held_elsewhere, one_of_each, queued
from tests.cli.terminal import SEGUNDO, Answer
from tests.ledger.suite import call
from tests.support import ledger_rows, wait_until

Inside = Callable[..., Answer]


def test_a_dry_run_shows_what_would_move_and_changes_nothing(inside: Inside) -> None:
    records = one_of_each()
    before = ledger_rows(Path("segundo.db"))
    answer = inside("move", "segundo.db", "new.db", "--dry-run")
    assert answer.code == 0
    assert [line.split() for line in answer.out.splitlines()[:4]] == [
        ["TASK", "QUEUE", "STATE", "RECORDS"],
        *(["tests.tasks:work", "default", state, "1"] for state in ("queued", "running", "waiting")),
    ]
    assert "3 records would move" in answer.out
    assert "6 records would move" in inside("move", "segundo.db", "new.db", "--dry-run", "--all").out
    assert ledger_rows(Path("segundo.db")) == before
    assert not Path("new.db").exists()
    assert len(records) == 6


def test_records_move_and_the_old_ledger_says_where_they_went(inside: Inside) -> None:
    record = fill(queued)
    answer = inside("move", "segundo.db", "new.db")
    assert (answer.code, answer.out) == (0, f"moved 1 record to {Path('new.db').absolute()}\n")
    assert "SEGUNDO_LEDGER" in answer.err
    assert [row["id"] for row in ledger_rows(Path("new.db"))] == [record.id]
    refused = inside("prune")
    assert refused.code == 1
    assert str(Path("new.db").absolute()) in refused.err
    assert inside("ls").err == "no records\n"
    assert inside("move", "segundo.db", "new.db").out.startswith("moved 0 records")


def test_what_is_alive_is_named_and_nothing_moves(inside: Inside) -> None:
    with held_elsewhere(call()) as holder:
        answer = inside("move", "segundo.db", "new.db")
        assert (answer.code, answer.out) == (1, "")
        for words in (f"pid {holder.pid}", "1 record in hand", "stop the app"):
            assert words in answer.err
        assert f"pid {holder.pid}" in inside("move", "segundo.db", "new.db", "--dry-run").err
    assert not Path("new.db").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("segundo.db", "segundo.db"), "both OLD and NEW"),
        (("nothing.db", "new.db"), "there is no ledger"),
        (("segundo.db", "memory://"), "inside the process"),
        (("segundo.db", "mysql://here/there"), "a ledger is a path"),
        (("segundo.db", "no/such/folder/new.db"), "folder"),
    ],
)
def test_places_that_cannot_be_are_refused(inside: Inside, arguments: tuple[str, str], says: str) -> None:
    fill(queued)
    answer = inside("move", *arguments)
    assert answer.code == 1
    assert says in answer.err
    assert [row["state"] for row in ledger_rows(Path("segundo.db"))] == [State.QUEUED]


def test_what_cannot_move_is_named_and_how_to_go_on(inside: Inside) -> None:
    record = fill(partial(queued, key="one"))
    other = fill(partial(queued, key="one"), Path("new.db"))
    answer = inside("move", "segundo.db", "new.db")
    assert answer.code == 1
    assert "is shut until the move is finished" in answer.err
    for words in (record.id, other.id, "cancel that one"):
        assert words in answer.err
    assert inside("cancel", other.id, "--ledger", "new.db").code == 0
    assert inside("move", "segundo.db", "new.db").out.startswith("moved 1 record")


def test_a_move_that_is_killed_is_finished_by_the_same_command(inside: Inside) -> None:
    fill(lambda ledger: call_many(ledger, 5000))
    with subprocess.Popen(
        [*SEGUNDO, "move", "segundo.db", "new.db"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as mover:
        wait_until(lambda: rows("new.db") >= 500, 20, every=0.001)
        mover.send_signal(signal.SIGKILL)
    assert mover.returncode == -signal.SIGKILL
    assert inside("move", "segundo.db", "new.db").out.startswith("moved ")
    assert (rows("segundo.db"), rows("new.db", "queued")) == (0, 5000)


def rows(path: str, state: str = "") -> int:
    query = "SELECT count(*) AS count FROM records WHERE state = ? OR ? = ''"
    with suppress(sqlite3.OperationalError):  # it is just being made
        return int(ledger_rows(Path(path), query, state, state)[0]["count"])
    return 0
