"""Another process holds the write lock: requests wait for a while, then are refused, and the loop goes on."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from segundo.errors import LedgerUnavailable
from segundo.ledger import Settlement
from segundo.ledger.sqlite import SQLiteLedger
from segundo.record import State
from tests.failures.conftest import OpenLedger
from tests.failures.faults import Faults, end_of_turn, io_error
from tests.failures.story import ME, call, rows
from tests.support import wait_until_async

WRITE = """
import sqlite3, sys
stranger = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.stdin:
    stranger.execute(statement)
    print("done", flush=True)
stranger.close()
"""
TAKE_THE_TURN = """
import fcntl, sys
with open(sys.argv[1] + "-lock", "r+b") as file:
    for kind in sys.stdin:
        fcntl.lockf(file, getattr(fcntl, kind.strip()), 2, 0)
        print("done", flush=True)
"""
MANY_TICKS = 100
SHORT, LONG = (
    0.05,
    60.0,
)  # seconds of patience: any lock here lasts longer than the one and shorter than the other
LONG_ENOUGH_TO_BEGIN = 0.5


class Stranger:
    """Another process at the same file, which does what it is told."""

    def __init__(self, program: str, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()

    def do(self, what: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Ticker:
    """Counts how often the loop gets round to a timer."""

    ticks = 0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()

    async def _tick(self) -> None:
        while True:
            self.ticks += 1
            await asyncio.sleep(0.001)  # the pulse: how seldom it beats is what is looked at

    async def tick_on(self) -> None:
        """As many times more as show that nothing blocks the loop."""
        enough = self.ticks + MANY_TICKS
        await wait_until_async(lambda: self.ticks >= enough)


async def accepts(ledger: SQLiteLedger, *, held: bool = True) -> bool:
    """Whether it takes a call; with so little patience a busy machine is enough to be refused."""
    try:
        return bool(await ledger.record([call(held=held)], owner=ME))
    except LedgerUnavailable:
        return False


async def test_a_request_is_refused_when_the_lock_lasts_too_long_and_never_runs(opened: OpenLedger) -> None:
    async with opened(record_timeout=SHORT) as ledger:
        with Stranger(WRITE, ledger.path) as stranger:
            stranger.do("BEGIN IMMEDIATE")
            for held in (True, False):
                with pytest.raises(LedgerUnavailable):
                    await ledger.record([call(held=held)], owner=ME)
            stranger.do("ROLLBACK")
            assert await ledger.claim(ME, limit=10) == []
            assert rows(ledger) == {}
            await wait_until_async(lambda: accepts(ledger))


async def test_a_request_is_recorded_when_the_lock_ends_in_time(opened: OpenLedger) -> None:
    async with opened(record_timeout=LONG) as ledger:
        with Stranger(WRITE, ledger.path) as stranger:
            stranger.do("BEGIN IMMEDIATE")
            requests = [asyncio.ensure_future(ledger.record([call()], owner=ME)) for _ in range(3)]
            async with Ticker() as ticker:
                await ticker.tick_on()
                assert not any(request.done() for request in requests)
            stranger.do("COMMIT")
            recorded = await asyncio.gather(*requests)
            assert rows(ledger).keys() == {record.id for (record,) in recorded}


async def test_the_loop_is_never_blocked_whatever_waits_for_the_lock(opened: OpenLedger) -> None:
    async with opened(record_timeout=LONG) as ledger:
        await ledger.join(ME)
        (kept,) = await ledger.record([call(held=False)], owner=ME)
        with Stranger(WRITE, ledger.path) as stranger:
            stranger.do("BEGIN IMMEDIATE")
            async with Ticker() as ticker:
                waiting = [
                    asyncio.ensure_future(verb)
                    for verb in (
                        ledger.record([call()], owner=ME),
                        ledger.claim(ME, limit=1),
                        ledger.release(ME, []),
                        ledger.settle([Settlement(id="1", claim=1, state=State.SUCCEEDED)]),
                        ledger.beat(ME, running=[]),
                        ledger.rescue(),
                    )
                ]
                assert [record.id for record in await ledger.select()] == [kept.id], "reads do not wait"
                await ticker.tick_on()
                assert not any(verb.done() for verb in waiting)
            stranger.do("ROLLBACK")
            await asyncio.gather(*waiting)


async def test_an_outcome_waits_as_long_as_the_lock_lasts(opened: OpenLedger) -> None:
    """A task has run: that is not refused, however long it takes."""
    async with opened(record_timeout=SHORT) as ledger:
        await wait_until_async(lambda: accepts(ledger, held=False))
        (running,) = await ledger.claim(ME, limit=1)
        with Stranger(WRITE, ledger.path) as stranger:
            stranger.do("BEGIN IMMEDIATE")
            outcome = Settlement(id=running.id, claim=running.claim, state=State.SUCCEEDED)
            settling = asyncio.ensure_future(ledger.settle([outcome]))
            with pytest.raises(LedgerUnavailable):
                await ledger.record([call()], owner=ME)
            assert not settling.done()
            stranger.do("COMMIT")
            assert await settling == [True]
            assert rows(ledger)[running.id]["state"] == "succeeded"


async def test_a_ledger_closes_though_a_stranger_holds_the_lock(opened: OpenLedger) -> None:
    async with opened(record_timeout=LONG) as ledger:
        with Stranger(WRITE, ledger.path) as stranger:
            stranger.do("BEGIN IMMEDIATE")
            waiting = asyncio.ensure_future(ledger.record([call()], owner=ME))
            await end_of_turn()
            await ledger.close()
            with pytest.raises(LedgerUnavailable, match="locked by another program"):
                await waiting
            stranger.do("ROLLBACK")
        assert rows(ledger) == {}


@pytest.fixture
def stranger_steps_in(faults: Faults) -> Callable[[Stranger], None]:
    """The next batch fails, and before it is tried again, change by change, a stranger takes the lock."""

    def arm(stranger: Stranger) -> None:
        def error() -> Exception:
            if faults.seen[-1] == "ROLLBACK":
                stranger.do("BEGIN IMMEDIATE")
                faults.heal()
            return io_error()

        faults.arm(lambda sql: "INSERT INTO records" in sql or sql == "ROLLBACK", when="after", error=error)

    return arm


async def test_what_is_tried_again_one_by_one_is_refused_when_the_lock_lasts_too_long(
    opened: OpenLedger, faults: Faults, stranger_steps_in: Callable[[Stranger], None]
) -> None:
    async with opened(record_timeout=LONG_ENOUGH_TO_BEGIN) as ledger:
        with Stranger(WRITE, ledger.path) as stranger:
            stranger_steps_in(stranger)
            with pytest.raises(LedgerUnavailable):
                await ledger.record([call()], owner=ME)
            await wait_until_async(lambda: faults.seen[-1] == "BEGIN IMMEDIATE")
            stranger.do("ROLLBACK")
            await ledger.rescue()
            assert rows(ledger) == {}


async def test_a_ledger_closes_though_what_it_tries_again_finds_the_lock_taken(
    opened: OpenLedger, faults: Faults, stranger_steps_in: Callable[[Stranger], None]
) -> None:
    async with opened(record_timeout=LONG) as ledger:
        with Stranger(WRITE, ledger.path) as stranger:
            stranger_steps_in(stranger)
            waiting = asyncio.ensure_future(ledger.record([call()], owner=ME))
            await wait_until_async(lambda: faults.seen[-2:] == ["BEGIN IMMEDIATE"] * 2)
            await ledger.close()
            with pytest.raises(LedgerUnavailable, match="locked by another program"):
                await waiting
            stranger.do("ROLLBACK")
        assert rows(ledger) == {}


async def test_a_stranger_that_dies_with_the_lock_gives_it_back(opened: OpenLedger) -> None:
    async with opened(record_timeout=LONG) as ledger:
        with Stranger(WRITE, ledger.path) as stranger:
            stranger.do("BEGIN IMMEDIATE")
            stranger.do("DELETE FROM meta")
            recording = asyncio.ensure_future(ledger.record([call()], owner=ME))
            await end_of_turn()
            stranger.kill()
            assert len(await recording) == 1


async def test_a_request_is_refused_when_another_app_process_keeps_its_turn(opened: OpenLedger) -> None:
    """As one does that was frozen (SIGSTOP) in the middle of a commit."""
    async with opened(record_timeout=SHORT) as ledger:
        with Stranger(TAKE_THE_TURN, ledger.path) as frozen:
            frozen.do("LOCK_EX")
            async with Ticker() as ticker:
                for held in (True, False):
                    with pytest.raises(LedgerUnavailable):
                        await ledger.record([call(held=held)], owner=ME)
                await ticker.tick_on()
            frozen.do("LOCK_UN")
            assert await ledger.claim(ME, limit=10) == []
            assert rows(ledger) == {}
            await wait_until_async(lambda: accepts(ledger))


async def test_a_ledger_closes_though_another_app_process_keeps_its_turn(opened: OpenLedger) -> None:
    async with opened(record_timeout=SHORT) as ledger:
        with Stranger(TAKE_THE_TURN, ledger.path) as frozen:
            frozen.do("LOCK_EX")
            waiting = asyncio.ensure_future(ledger.record([call()], owner=ME))
            await end_of_turn()
            await ledger.close()
            with pytest.raises(LedgerUnavailable):
                await waiting
            frozen.do("LOCK_UN")
            writer = ledger._writer
            await wait_until_async(lambda: not writer.is_alive())
        assert rows(ledger) == {}
