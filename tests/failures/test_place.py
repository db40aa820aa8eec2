"""The ledger's files deleted or replaced under the app: nothing claims success, and put back it goes on."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from segundo.errors import LedgerUnavailable
from segundo.ledger import Settlement
from segundo.ledger.sqlite import SQLiteLedger
from segundo.record import State
from tests.failures.conftest import OpenLedger
from tests.failures.faults import Faults, Gate, commit
from tests.failures.story import ME, call, check_file, rows
from tests.support import ledger_rows, wait_until_async

SUFFIXES = ("", "-wal", "-shm", "-lock")
Restore = Callable[[], None]


def deleted(file: Path, spare: Path) -> Restore:
    file.rename(spare)
    return lambda: spare.replace(file) and None


def replaced(file: Path, spare: Path) -> Restore:
    """By an empty one, as a careless `touch` or a second start would make it."""
    file.rename(spare)
    file.touch()
    return lambda: spare.replace(file) and None


def replaced_by_another_ledger(file: Path, spare: Path) -> Restore:
    """By a real one: everything would seem to work."""
    shutil.copy(file.with_name("other.db" + file.name.removeprefix("ledger.db")), spare.with_name("copy"))
    file.rename(spare)
    spare.with_name("copy").rename(file)
    return lambda: spare.replace(file) and None


def beside(ledger: SQLiteLedger, suffix: str) -> tuple[Path, Path]:
    return Path(f"{ledger.path}{suffix}"), ledger.path.with_name("spare")


async def refused_all(ledger: SQLiteLedger, claimed: Settlement) -> None:
    """Every verb refuses."""
    for verb in (
        lambda: ledger.record([call()], owner=ME),
        lambda: ledger.record([call(held=False)], owner=ME),
        lambda: ledger.claim(ME, limit=10),
        lambda: ledger.settle([claimed]),
        lambda: ledger.release(ME, []),
        lambda: ledger.rescue(),
    ):
        with pytest.raises(LedgerUnavailable):
            await verb()


@pytest.mark.parametrize("suffix", SUFFIXES, ids=["file", "wal", "shm", "lock"])
@pytest.mark.parametrize("befall", [deleted, replaced, replaced_by_another_ledger])
async def test_nothing_claims_success_until_the_file_is_put_back(
    befall: Callable[[Path, Path], Restore], suffix: str, opened: OpenLedger
) -> None:
    async with opened("other", Faults()), opened() as ledger:
        await ledger.join(ME)
        waiting = (await ledger.record([call()], owner=ME))[0]
        await ledger.record([call(held=False)], owner=ME)
        (running,) = await ledger.claim(ME, limit=1)
        outcome = Settlement(id=running.id, claim=running.claim, state=State.FAILED, reason="Broken")
        file, spare = beside(ledger, suffix)
        restore = befall(file, spare)
        impostor = file.read_bytes() if file.exists() else None
        await refused_all(ledger, outcome)
        assert impostor == (file.read_bytes() if file.exists() else None), "it was written into"
        restore()
        assert await ledger.settle([outcome]) == [True]
        await ledger.release(ME, [waiting.id])
        (late,) = await ledger.record([call(held=False)], owner=ME)
        assert {record.id for record in await ledger.claim(ME, limit=10)} == {waiting.id, late.id}
        assert rows(ledger).keys() == {waiting.id, running.id, late.id}
    check_file(ledger.path, [waiting.id, running.id, late.id])


async def test_a_commit_into_a_file_that_goes_meanwhile_is_no_success(
    opened: OpenLedger, faults: Faults
) -> None:
    async with opened() as ledger:
        await ledger.record([call(held=False)], owner=ME)
        (running,) = await ledger.claim(ME, limit=1)
        outcome = Settlement(id=running.id, claim=running.claim, state=State.SUCCEEDED)
        gate = Gate(faults, commit)
        recording = asyncio.ensure_future(ledger.record([call(), call()], owner=ME))
        settling = asyncio.ensure_future(ledger.settle([outcome]))
        await wait_until_async(lambda: gate.reached)
        restore = deleted(*beside(ledger, ""))
        gate.open()
        said = await asyncio.gather(recording, settling, return_exceptions=True)
        assert all(isinstance(answer, LedgerUnavailable) for answer in said), said
        restore()
        assert await ledger.settle([outcome]) == [True]
        assert rows(ledger).keys() == {running.id}, "what was refused is not in the file"


async def test_a_ledger_that_takes_its_place_while_it_connects_anew_is_not_written_to(
    opened: OpenLedger, faults: Faults
) -> None:
    """And not when ours is back either: SQLite's close of that connection has removed the WAL of the path."""
    async with opened("other", Faults()), opened() as ledger:
        file, spare = beside(ledger, "")
        restores: list[Restore] = []
        faults.before_connecting = lambda: restores.append(replaced_by_another_ledger(file, spare))
        faults.arm(1)
        with pytest.raises(LedgerUnavailable):
            await ledger.record([call()], owner=ME)
        assert len(restores) == 1, "it was connected to once"
        assert ledger_rows(file) == []
        restores[0]()
        with pytest.raises(LedgerUnavailable, match="restart the app"):
            await ledger.record([call()], owner=ME)


async def test_a_file_that_goes_while_it_connects_anew_is_not_made_again(
    opened: OpenLedger, faults: Faults
) -> None:
    async with opened() as ledger:
        restores: list[Restore] = []
        faults.before_connecting = lambda: restores.append(deleted(*beside(ledger, "")))
        faults.arm(1)
        with pytest.raises(LedgerUnavailable):
            await ledger.record([call()], owner=ME)
        assert not ledger.path.exists()
        faults.before_connecting = lambda: None
        restores[0]()
        assert len(await ledger.record([call()], owner=ME)) == 1


@pytest.mark.parametrize("befall", [deleted, replaced, replaced_by_another_ledger])
async def test_no_connection_is_made_while_the_file_is_not_in_place(
    befall: Callable[[Path, Path], Restore], opened: OpenLedger, faults: Faults
) -> None:
    """It would make a file anew, or, closed again, take the WAL away that ours still needs."""
    async with opened("other", Faults()), opened() as ledger:
        (kept,) = await ledger.record([call()], owner=ME)
        file, spare = beside(ledger, "")
        restore = befall(file, spare)
        impostor = file.exists() and file.read_bytes()
        faults.arm(lambda sql: True)
        with pytest.raises(LedgerUnavailable):
            await ledger.record([call()], owner=ME)
        faults.heal()
        with pytest.raises(LedgerUnavailable):
            await ledger.record([call()], owner=ME)
        assert impostor == (file.exists() and file.read_bytes())
        restore()
        (late,) = await ledger.record([call()], owner=ME)
        assert rows(ledger).keys() == {kept.id, late.id}
