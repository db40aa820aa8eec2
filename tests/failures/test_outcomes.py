"""A commit that is carried out and raises all the same: every answer is true either way."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from segundo.errors import LedgerUnavailable
from segundo.ledger import Settlement
from segundo.ledger.sqlite import SQLiteLedger
from segundo.ledger.sqlite.turns import WORKERS, lock_file
from segundo.record import Link, Record, State
from tests.failures.conftest import OpenLedger
from tests.failures.faults import Faults, commit, io_error
from tests.failures.story import ME, call, rows
from tests.support import wait_until_async


def nth_commit(number: int) -> Callable[[str], bool]:
    """Strikes the nth commit from now on, and no other."""
    commits = iter(range(1, 100))
    return lambda sql: commit(sql) and next(commits) == number


async def claimed(ledger: SQLiteLedger, **options: object) -> Record:
    """A record of ours that runs."""
    await ledger.record([call(held=False, **options)], owner=ME)
    (record,) = await ledger.claim(ME, limit=1)
    return record


async def test_a_call_is_recorded_once_though_its_commit_raised(opened: OpenLedger, faults: Faults) -> None:
    async with opened() as ledger:
        new = call()
        faults.arm(nth_commit(1), when="after")
        assert [record.id for record in await ledger.record([new], owner=ME)] == [new.id]
        assert faults.struck
        assert list(rows(ledger)) == [new.id]


async def test_a_call_refused_though_its_commits_happened_is_gone(opened: OpenLedger, faults: Faults) -> None:
    async with opened() as ledger:
        faults.arm(commit, when="after")
        with pytest.raises(LedgerUnavailable):
            await ledger.record([call(), call(held=False)], owner=ME)
        faults.heal()
        assert await ledger.claim(ME, limit=10) == []
        assert rows(ledger) == {}


async def test_a_refused_call_is_forgotten_once_the_ledger_works_again(
    opened: OpenLedger, faults: Faults
) -> None:
    async with opened() as ledger:
        faults.arm(lambda sql: commit(sql) or (faults.struck and sql == "BEGIN IMMEDIATE"), when="after")
        with pytest.raises(LedgerUnavailable):
            await ledger.record([call()], owner=ME)
        assert len(rows(ledger)) == 1, "its commit happened, and nothing could be done about it yet"
        faults.heal()
        await wait_until_async(lambda: rows(ledger) == {})


async def test_a_refused_call_is_forgotten_by_the_close_at_the_latest(
    opened: OpenLedger, faults: Faults
) -> None:
    async with opened() as ledger:
        faults.arm(lambda sql: commit(sql) or (faults.struck and sql == "BEGIN IMMEDIATE"), when="after")
        with pytest.raises(LedgerUnavailable):
            await ledger.record([call()], owner=ME)
        faults.heal()
    assert rows(ledger) == {}


async def test_what_a_duplicate_was_told_is_read_back(opened: OpenLedger, faults: Faults) -> None:
    """The live record that it is the same as ends between a commit that raised and the second try."""
    async with opened() as ledger:
        live = await claimed(ledger, key="k")

        def and_meanwhile_it_ends() -> Exception:
            with closing(sqlite3.connect(ledger.path)) as stranger:
                stranger.execute(
                    f"UPDATE records SET state = 'failed', finished_at = 1 WHERE id = '{live.id}'"
                )
                stranger.commit()
            return io_error()

        faults.arm(nth_commit(1), when="after", error=and_meanwhile_it_ends)
        (duplicate,) = await ledger.record([call(key="k")], owner=ME)
        assert rows(ledger)[live.id]["state"] == "failed"
        assert (duplicate.reason, duplicate.same_as) == ("Duplicate", live.id)
        assert rows(ledger)[duplicate.id]["reason"] == "Duplicate"


@pytest.mark.parametrize("lasting", [False, True], ids=["known at once", "known when tried again"])
@pytest.mark.parametrize(
    ("state", "reason", "failures"),
    [
        (State.SUCCEEDED, None, 0),
        (State.FAILED, "Broken", 1),
        (State.QUEUED, "Stumble", 1),
        (State.CANCELLED, "Cancelled", 0),
    ],
)
async def test_an_outcome_is_stored_once_though_its_commit_raised(
    state: State, reason: str | None, failures: int, lasting: bool, opened: OpenLedger, faults: Faults
) -> None:
    async with opened() as ledger:
        record = await claimed(ledger)
        settlement = Settlement(id=record.id, claim=record.claim, state=state, reason=reason)
        faults.arm(commit if lasting else nth_commit(1), when="after")
        if lasting:
            with pytest.raises(LedgerUnavailable):
                await ledger.settle([settlement])
            faults.heal()
        assert await ledger.settle([settlement]) == [True]
        assert faults.struck
        row = rows(ledger)[record.id]
        assert (row["state"], row["failures"], row["claim"]) == (state, failures, 1)


async def test_an_outcome_that_was_stored_twice_is_not_believed(opened: OpenLedger) -> None:
    """Without a failure in between, the second settlement is somebody else's."""
    async with opened() as ledger:
        record = await claimed(ledger)
        settlement = Settlement(id=record.id, claim=record.claim, state=State.SUCCEEDED)
        assert await ledger.settle([settlement]) == [True]
        assert await ledger.settle([settlement]) == [False]


async def test_a_claim_that_was_lost_settles_nothing_though_its_first_try_failed(
    opened: OpenLedger, faults: Faults
) -> None:
    async with opened() as ledger:
        record = await claimed(ledger, crash_limit=3)
        settlement = Settlement(id=record.id, claim=record.claim, state=State.SUCCEEDED)
        faults.arm(lambda sql: True)
        with pytest.raises(LedgerUnavailable):
            await ledger.settle([settlement])
        faults.heal()
        await ledger.beat(ME, running=[])  # it is taken back meanwhile
        assert await ledger.settle([settlement]) == [False]
        (record,) = await ledger.claim(ME, limit=1)
        assert record.claim == 2


async def test_what_a_claim_took_though_it_raised_goes_back(opened: OpenLedger, faults: Faults) -> None:
    async with opened() as ledger:
        await ledger.record([call(held=False), call(held=False)], owner=ME)
        faults.arm(commit, when="after")
        with pytest.raises(LedgerUnavailable):
            await ledger.claim(ME, limit=1)
        faults.heal()
        assert {row["state"] for row in rows(ledger).values()} == {"running"}, "two tries, one record each"
        await ledger.beat(ME, running=[])
        again = await ledger.claim(ME, limit=10)
        assert [(record.claim, record.failures, record.crashes) for record in again] == [(2, 0, 0)] * 2


async def test_a_claim_that_knows_its_outcome_late_takes_nothing_twice(
    opened: OpenLedger, faults: Faults
) -> None:
    async with opened() as ledger:
        await ledger.record([call(held=False) for _ in range(4)], owner=ME)
        faults.arm(nth_commit(1), when="after")
        first = await ledger.claim(ME, limit=2)
        second = await ledger.claim(ME, limit=2)
        assert second == []
        beat = await ledger.beat(ME, running=[record.id for record in first])
        assert beat.lost == ()
        third = await ledger.claim(ME, limit=4)
        assert {record.id for record in third}.isdisjoint(record.id for record in first)
        assert len(first) + len(third) == 4


async def test_a_release_whose_commit_raised_has_released(opened: OpenLedger, faults: Faults) -> None:
    async with opened() as ledger:
        (record,) = await ledger.record([call()], owner=ME)
        faults.arm(nth_commit(1), when="after")
        await ledger.release(ME, [record.id])
        assert [record.id for record in await ledger.claim(ME, limit=1)] == [record.id]


async def test_others_hear_of_what_a_commit_freed_though_it_raised(
    opened: OpenLedger, faults: Faults
) -> None:
    """A chain's second call becomes claimable in a commit that raises: who claims must hear of it."""
    heard: list[bool] = []
    async with opened() as ledger:
        first = call(held=False)
        await ledger.record([first, call(held=False, after=(Link(first.id),))], owner=ME)
        (record,) = await ledger.claim(ME, limit=2)
        ledger.listen(lambda: heard.append(True))
        faults.arm(nth_commit(1), when="after")
        await ledger.settle([Settlement(id=record.id, claim=record.claim, state=State.SUCCEEDED)])
        await wait_until_async(lambda: heard)
        assert len(await ledger.claim(ME, limit=2)) == 1


async def test_a_worker_that_could_not_join_holds_no_number(opened: OpenLedger, faults: Faults) -> None:
    """Another process gets that number, and would wait for its lock for ever, inside its turn to write."""
    async with opened() as ledger:
        faults.arm(commit)
        with pytest.raises(LedgerUnavailable):
            await ledger.join(ME)
        assert living(lock_file(ledger.path)) == []
        faults.heal()
        await ledger.join(ME)
        assert living(lock_file(ledger.path)) == [1]


async def test_a_worker_that_joins_again_in_vain_stays_alive(opened: OpenLedger, faults: Faults) -> None:
    async with opened() as ledger:
        await ledger.join(ME)
        faults.arm(commit)
        with pytest.raises(LedgerUnavailable):
            await ledger.join(ME)
        assert living(lock_file(ledger.path)) == [1]


TRY_LOCKS = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    for number in range(1, 10):
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[2]) + number)
        except OSError:
            print(number)
"""


def living(path: Path) -> list[int]:
    """The numbers of workers that live, as another process finds them."""
    command = [sys.executable, "-c", TRY_LOCKS, str(path), str(WORKERS)]
    tried = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(number) for number in tried.stdout.split()]


@pytest.mark.parametrize("wrong", [False, True], ids=["recorded", "refused"])
@pytest.mark.parametrize("lasting", [False, True], ids=["known at once", "known when tried again"])
async def test_child_calls_are_recorded_once_though_the_commit_of_their_parent_raised(
    lasting: bool, wrong: bool, opened: OpenLedger, faults: Faults
) -> None:
    async with opened() as ledger:
        parent = await claimed(ledger)
        child = call(after=(Link("nothing" if wrong else parent.id, "run"),))
        outcome = Settlement(id=parent.id, claim=parent.claim, state=State.SUCCEEDED, children=(child,))
        if lasting:
            faults.arm(lambda sql: commit(sql) or (faults.struck and sql == "BEGIN IMMEDIATE"), when="after")
            with pytest.raises(LedgerUnavailable):
                await ledger.settle([outcome])
            faults.heal()
        else:
            faults.arm(nth_commit(1), when="after")
        assert await ledger.settle([outcome]) == [True]
        found = rows(ledger)
        states = {parent.id: "failed"} if wrong else {parent.id: "succeeded", child.id: "queued"}
        assert {id: row["state"] for id, row in found.items()} == states
