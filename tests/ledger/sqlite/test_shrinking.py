"""What deleted records leave is used again, and much of it is given back to the disk."""

from pathlib import Path

from segundo.record import State
from tests.ledger.suite import SQLiteStore, Stage, call, settlement

PAGE = 4096


async def test_a_file_whose_records_are_gone_gives_their_room_back_a_little_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with Stage.on(SQLiteStore(path, "normal")) as stage:
        calls = [call(arguments="x" * 16_000) for _ in range(600)]
        records = await stage.ledger.record(calls, owner=stage.me)
        for _ in records:
            (running,) = await stage.ledger.claim(stage.me, limit=1)
            await stage.ledger.settle([settlement(running, State.SUCCEEDED)])
        stage.clock.move(1)
    assert (full := path.stat().st_size) > 600 * 16_000
    async with Stage.on(SQLiteStore(path, "normal")) as stage:
        assert await stage.ledger.prune(older_than=0) == 600
    assert 512 <= (full - path.stat().st_size) // PAGE < 520  # with the pages that say where others are
    async with Stage.on(SQLiteStore(path, "normal")) as stage:
        for _ in range(10):
            assert await stage.ledger.prune(older_than=0) == 0
        left = await stage.queued()
        assert stage.records() == {left.id: left}
    assert path.stat().st_size < 512 * PAGE
