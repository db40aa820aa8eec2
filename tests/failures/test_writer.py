"""The writing thread: whatever happens in it, who waits for it gets an answer."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from segundo.errors import LedgerUnavailable
from segundo.ledger import Settlement
from segundo.ledger.sqlite import SQLiteLedger, file
from segundo.record import State
from tests.failures.conftest import OpenLedger
from tests.failures.faults import Faults, Gate, end_of_turn, io_error
from tests.failures.story import ME, call, rows
from tests.support import wait_until_async

Verb = Callable[[SQLiteLedger], Awaitable[Any]]

VERBS: dict[str, Verb] = {
    "join": lambda ledger: ledger.join("other"),
    "record": lambda ledger: ledger.record([call()], owner=ME),
    "release": lambda ledger: ledger.release(ME, ["1"]),
    "claim": lambda ledger: ledger.claim(ME, limit=1),
    "settle": lambda ledger: ledger.settle([Settlement(id="1", claim=1, state=State.SUCCEEDED)]),
    "beat": lambda ledger: ledger.beat(ME, running=[]),
    "rescue": lambda ledger: ledger.rescue(),
    "progress": lambda ledger: ledger.progress("1", 1, "{}"),
    "prune": lambda ledger: ledger.prune(),
    "leave": lambda ledger: ledger.leave(ME),
}


async def answers(ledger: SQLiteLedger) -> dict[str, object]:
    """What every verb, called at once, answers or raises. Fails if one of them never does."""
    async with asyncio.timeout(20):
        said = await asyncio.gather(*(verb(ledger) for verb in VERBS.values()), return_exceptions=True)
    return dict(zip(VERBS, said, strict=True))


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("error", [ValueError, MemoryError, RecursionError])
async def test_nobody_waits_for_ever_whichever_statement_meets_a_bug(
    error: type[Exception], lasting: bool, opened: OpenLedger
) -> None:
    number = 0
    while True:
        number += 1
        faults = Faults()
        async with opened(f"{number}", faults) as ledger:
            await ledger.join(ME)
            faults.arm(number, error=error, lasting=lasting)
            said = await answers(ledger)
            faults.heal()
            assert all(
                isinstance(answer, error | LedgerUnavailable) or not isinstance(answer, BaseException)
                for answer in said.values()
            ), said
            assert len(await ledger.record([call()], owner=ME)) == 1, "and it goes on"
        if not faults.struck or (lasting and number > 3):
            return


async def test_a_call_that_cannot_be_written_fails_alone(opened: OpenLedger, faults: Faults) -> None:
    async with opened() as ledger:
        gate = Gate(faults, 1)
        held_up = asyncio.ensure_future(ledger.rescue())
        await wait_until_async(lambda: gate.reached)
        good, bad = [call(), call()], call()._replace(arguments=object())  # type: ignore[arg-type]
        calls = (good[0], bad, good[1])  # of three requests, in one transaction
        recording = [asyncio.ensure_future(ledger.record([each], owner=ME)) for each in calls]
        await end_of_turn()
        gate.open()
        await held_up
        said = await asyncio.gather(*recording, return_exceptions=True)
        assert isinstance(said[1], LedgerUnavailable)
        assert [said[0][0].id, said[2][0].id] == [each.id for each in good]
        assert list(rows(ledger)) == sorted(each.id for each in good)


async def test_a_listener_that_fails_stops_nothing(
    opened: OpenLedger, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    async with opened() as ledger, opened("ledger", Faults()) as other:
        ledger.listen(fail)
        await other.record([call(held=False)], owner="other")
        await wait_until_async(lambda: "ZeroDivisionError" in caplog.text)
        await other.record([call(held=False)], owner="other")
        assert len(await ledger.claim(ME, limit=2)) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("number", [1, 2, 5])
async def test_a_writer_that_ends_refuses_all_that_wait_and_all_that_come(
    number: int, opened: OpenLedger, faults: Faults
) -> None:
    async with opened() as ledger:
        await ledger.join(ME)
        faults.arm(number, error=SystemExit, lasting=True)
        said = await answers(ledger)  # those that were before it, in its hands, and behind it
        assert any(isinstance(answer, LedgerUnavailable) for answer in said.values()), said
        said = await answers(ledger)  # those that come when it has ended
        assert all(isinstance(answer, LedgerUnavailable) for answer in said.values()), said


async def test_what_comes_while_it_closes_is_answered(opened: OpenLedger, faults: Faults) -> None:
    async with opened() as ledger:
        gate = Gate(faults, 1)
        posted = [asyncio.ensure_future(ledger.record([call()], owner=ME))]
        await wait_until_async(lambda: gate.reached)
        posted += [asyncio.ensure_future(ledger.record([call()], owner=ME)) for _ in range(3)]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(ledger.close())
        await asyncio.sleep(0)
        with pytest.raises(LedgerUnavailable):
            await ledger.record([call()], owner=ME)
        gate.open()
        async with asyncio.timeout(20):
            await asyncio.gather(*posted)
            await closing
        assert len(rows(ledger)) == 4, "what was posted before the close was still recorded"


async def test_a_loop_that_was_closed_does_not_stop_the_others(opened: OpenLedger, faults: Faults) -> None:
    async with opened() as ledger:
        gate = Gate(faults, 1)

        async def begin_and_leave() -> None:
            recording = asyncio.ensure_future(ledger.record([call()], owner=ME))
            await wait_until_async(lambda: gate.reached)
            assert not recording.done()

        await asyncio.to_thread(asyncio.run, begin_and_leave())
        gate.open()
        assert len(await ledger.record([call()], owner=ME)) == 1


@pytest.mark.parametrize("part", ["INSERT INTO records", "COMMIT"])
async def test_a_full_stop_of_the_disk_leaves_no_lock_behind(
    part: str, opened: OpenLedger, faults: Faults
) -> None:
    """Not even ROLLBACK works: the connection is closed, so that others can write."""

    def strikes(sql: str) -> bool:
        if sql in ("COMMIT", "ROLLBACK"):
            raise io_error()
        return part in sql

    async with opened() as ledger:
        faults.arm(strikes, when="after")
        with pytest.raises(LedgerUnavailable):
            await ledger.record([call()], owner=ME)
        stranger = sqlite3.connect(ledger.path, timeout=0, isolation_level=None)
        try:
            await wait_until_async(lambda: can_begin(stranger))
        finally:
            stranger.close()


async def test_a_full_ledger_refuses_what_does_not_fit_and_goes_on(own_directory: Path) -> None:
    room = [200]  # pages

    def connect(path: Path, durability: file.Durability) -> sqlite3.Connection:
        connection = file.connect(path, durability)
        connection.execute(f"PRAGMA max_page_count = {room[0]}")
        return connection

    ledger = SQLiteLedger(own_directory / "ledger.db", connect=connect)
    await ledger.open()
    try:
        await ledger.record([call(held=False)], owner=ME)
        (running,) = await ledger.claim(ME, limit=1)
        large = call()._replace(arguments='"' + "x" * 1_000_000 + '"')
        with pytest.raises(LedgerUnavailable, match="full"):
            await ledger.record([large], owner=ME)
        outcome = Settlement(id=running.id, claim=running.claim, state=State.SUCCEEDED)
        assert await ledger.settle([outcome]) == [True]
        assert rows(ledger).keys() == {running.id}
        room[0] = 2000
        assert len(await ledger.record([large], owner=ME)) == 1
    finally:
        await ledger.close()


def can_begin(stranger: sqlite3.Connection) -> bool:
    try:
        stranger.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return False
    stranger.execute("ROLLBACK")
    return True
