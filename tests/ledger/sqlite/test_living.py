"""Who lives is asked of the kernel: by locks on one file, with all that POSIX does to such locks."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from segundo.ledger.sqlite import SQLiteLedger
from segundo.ledger.sqlite.visitor import FileVisitor
from segundo.record import Record
from tests.ledger.actors import Actor, a_process
from tests.ledger.suite import SQLiteStore, Stage, call, settlement

DAY = 86400.0


@pytest.fixture
def other(stage: Stage) -> Iterator[Actor]:
    """Another process on the same file, with the owner "other"."""
    with a_process() as actor:
        actor.meet(stage.store, "other")
        yield actor


async def ours(stage: Stage) -> list[Record]:
    return [await stage.held(), await stage.running(crash_limit=3)]


async def test_a_frozen_process_is_never_robbed_however_long_it_is_frozen(stage: Stage, other: Actor) -> None:
    (held,) = other.do("record", [call(held=True)], owner="other")
    (running,) = other.do("claim", "other", ids=[(await stage.queued(crash_limit=3)).id], limit=1)
    other.pause()
    stage.clock.move(30 * DAY)
    third = await stage.another("third")
    assert await stage.ledger.rescue() == await third.rescue() == []
    assert [stage.now_is(record) for record in (held, running)] == [held, running]
    other.resume()
    assert other.do("settle", [settlement(running)]) == [True]


async def test_a_frozen_process_does_not_stop_the_others_from_working(stage: Stage, other: Actor) -> None:
    other.pause()
    record = await stage.running()
    assert await stage.ledger.settle([settlement(record)]) == [True]
    other.resume()


async def test_a_process_killed_while_it_is_frozen_is_dead(stage: Stage, other: Actor) -> None:
    other.do("claim", "other", ids=[(await stage.queued(crash_limit=3)).id], limit=1)
    other.pause()
    other.kill()
    assert len(await stage.ledger.rescue()) == 1


async def test_a_second_ledger_that_closes_in_our_process_does_not_make_us_look_dead(
    stage: Stage, other: Actor
) -> None:
    """Closing any descriptor of the lock file would drop every lock that the process has on it."""
    records = await ours(stage)
    second = await stage.another("second")
    await second.leave("second")
    await second.close()
    assert other.do("rescue") == []
    assert [stage.now_is(record) for record in records] == records


async def test_a_visitor_in_our_process_does_not_make_us_look_dead(stage: Stage, other: Actor) -> None:
    records = await ours(stage)
    assert isinstance(stage.ledger, SQLiteLedger)
    with FileVisitor(stage.ledger.path) as visitor:
        assert {worker.id: worker.alive for worker in visitor.workers()} == {"me": True, "other": True}
    assert other.do("rescue") == []
    assert [stage.now_is(record) for record in records] == records


async def test_a_rescue_of_ours_that_finds_nobody_dead_does_not_make_anybody_look_dead(
    stage: Stage, other: Actor
) -> None:
    records = await ours(stage)
    other.do("record", [call(held=True)], owner="other")
    for _ in range(3):
        assert await stage.ledger.rescue() == other.do("rescue") == []
    assert [stage.now_is(record) for record in records] == records


@pytest.mark.parametrize("of", ["the file", "its folder"])
async def test_who_comes_by_a_symlink_finds_the_living_alive(stage: Stage, tmp_path: Path, of: str) -> None:
    records = await ours(stage)
    assert isinstance(stage.ledger, SQLiteLedger)
    link = tmp_path / "elsewhere"
    link.symlink_to(stage.ledger.path if of == "the file" else stage.ledger.path.parent)
    path = link if of == "the file" else link / stage.ledger.path.name
    with a_process() as visitor:
        visitor.meet(SQLiteStore(path), "visitor")
        assert visitor.do("rescue") == []
        visitor.do("record", [call(held=True)], owner="visitor")
        assert await stage.ledger.rescue() == []
    second = SQLiteLedger(path, clock=stage.clock)
    await second.open()
    await second.rescue()
    await second.close()
    assert [stage.now_is(record) for record in records] == records
    assert f"{link.name}-lock" not in os.listdir(tmp_path)


async def test_a_worker_number_is_never_given_twice(stage: Stage, other: Actor) -> None:
    """A dead worker's number could otherwise be held by one who lives."""
    assert isinstance(stage.ledger, SQLiteLedger)
    other.kill()
    await stage.ledger.rescue()
    third = await stage.another("third")
    await third.leave("third")
    await third.close()
    await stage.another("fourth")
    with FileVisitor(stage.ledger.path) as visitor:
        numbers = {worker.id: worker.number for worker in visitor.workers()}
    assert numbers == {"me": 1, "fourth": 4}


async def test_a_worker_is_known_by_its_host_and_its_process(stage: Stage) -> None:
    assert isinstance(stage.ledger, SQLiteLedger)
    with FileVisitor(stage.ledger.path) as visitor:
        (worker,) = visitor.workers()
    assert (worker.pid, worker.host) == (os.getpid(), os.uname().nodename)


async def test_who_leaves_with_empty_hands_is_forgotten_when_it_closes(stage: Stage) -> None:
    assert isinstance(stage.ledger, SQLiteLedger)
    leaver, keeper = await stage.another("leaver"), await stage.another("keeper")
    await keeper.record([call(held=True)], owner="keeper")
    for ledger, owner in ((leaver, "leaver"), (keeper, "keeper")):
        await ledger.leave(owner)
        await ledger.close()
    with FileVisitor(stage.ledger.path) as visitor:
        found = {worker.id: (worker.alive, worker.stopping) for worker in visitor.workers()}
    assert found == {"me": (True, False), "keeper": (True, True)}
