"""Processes take turns at writing: plain SQLite gives the lock again to who has just had it."""

import time
from multiprocessing.connection import Connection
from pathlib import Path

from segundo.ledger.changes import Release
from segundo.ledger.sqlite import SQLiteLedger
from segundo.ledger.sqlite.turns import NEXT, WORKERS, Turns
from tests.ledger.actors import SPAWN, a_process
from tests.ledger.suite import SQLiteStore, Stage, call
from tests.support import wait_until

ROUNDS = 10
THE_NEXT = NEXT - WORKERS  # as if it were a worker: its lock is held by who waits for its turn


def _take_a_turn_when_asked(path: Path, journal: Path, asked: Connection) -> None:
    turns = Turns.at(path)
    asked.send("ready")
    for _ in range(ROUNDS):
        asked.recv()
        with turns.turn():
            _note(journal, "who waited")
        asked.send("done")
    turns.close()


def _note(journal: Path, line: str) -> None:
    with journal.open("a") as file:
        file.write(line + "\n")


def test_who_waits_for_a_turn_gets_it_before_who_has_just_had_it(tmp_path: Path) -> None:
    path, journal = tmp_path / "ledger.db-lock", tmp_path / "journal"
    turns = Turns.at(path)
    ours, theirs = SPAWN.Pipe()
    other = SPAWN.Process(target=_take_a_turn_when_asked, args=(path, journal, theirs), daemon=True)
    other.start()
    try:
        assert ours.recv() == "ready"
        for _ in range(ROUNDS):
            with turns.turn():
                _note(journal, "who has it")
                ours.send("take a turn")
                wait_until(lambda: Turns.living(path, [THE_NEXT]))
            with turns.turn():
                _note(journal, "who had it")
            assert ours.recv() == "done"
        assert journal.read_text().splitlines() == ["who has it", "who waited", "who had it"] * ROUNDS
        other.join(20)
        assert other.exitcode == 0
    finally:
        turns.close()
        other.kill()


async def test_what_another_process_commits_is_noticed(stage: Stage) -> None:
    """Its records may be ours to run."""
    noticed = SPAWN.Event()
    stage.ledger.listen(noticed.set)
    with a_process() as other:
        other.meet(stage.store, "other")
        noticed.clear()
        other.do("record", [call()], owner="other")
        assert noticed.wait(10)


async def test_who_always_has_more_to_write_lets_others_write_in_between(tmp_path: Path) -> None:
    """While it has more to do a writer keeps the turn, as long as nobody waits for it."""
    path, busy = tmp_path / "ledger.db", True

    def more() -> float:
        if busy:  # asked within each transaction, so there is always something that waits for the next
            ledger._writer.post([(Release([], "me"), lambda result, error: None)])
        return time.time()

    ledger = SQLiteLedger(path, clock=more)
    await ledger.open()
    await ledger.join("me")
    try:
        with a_process() as other:
            other.meet(SQLiteStore(path), "other")
            other.do("record", [call()], owner="other")
    finally:
        busy = False
        await ledger.close()
