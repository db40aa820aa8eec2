"""What closing a ledger leaves behind."""

from pathlib import Path

from segundo.ledger.sqlite import SQLiteLedger
from segundo.record import State
from tests.ledger.suite import call


async def test_an_owner_that_still_runs_something_stays_alive_when_its_ledger_closes(tmp_path: Path) -> None:
    ours, theirs = SQLiteLedger(tmp_path / "l.db"), SQLiteLedger(tmp_path / "l.db")
    await ours.open()
    await ours.join("me")
    await ours.record([call(held=False, crash_limit=3)], owner="me")
    (running,) = await ours.claim("me", limit=1)
    await ours.leave("me")
    await ours.close()

    await theirs.open()
    assert await theirs.rescue() == []
    (still,) = await theirs.select(ids=[running.id])
    assert still.state is State.RUNNING
    await theirs.close()


async def test_an_owner_that_runs_nothing_is_forgotten_when_it_leaves(tmp_path: Path) -> None:
    ours, theirs = SQLiteLedger(tmp_path / "l.db"), SQLiteLedger(tmp_path / "l.db")
    await ours.open()
    await ours.join("me")
    await ours.leave("me")
    await ours.close()

    await theirs.open()
    await theirs.join("me")  # the name is free again
    await theirs.leave("me")
    await theirs.close()
