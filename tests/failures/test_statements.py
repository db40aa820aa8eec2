"""The failure loop: the 1st, 2nd, … nth statement fails, until a story passes without a fault."""

from pathlib import Path

import pytest

from segundo.ledger.sqlite import SQLiteLedger
from tests.failures.faults import Error, Faults, When, full, interrupted, io_error, malformed
from tests.failures.story import Story, check_file

MANY = 1000  # no story has so many statements


async def tell(path: Path, faults: Faults, number: int, when: When, error: Error, lasting: bool) -> Story:
    """One story with the fault at its nth statement; a lasting one is gone once somebody was told of it."""
    ledger = SQLiteLedger(path, durability="normal", connect=faults.connect)
    await ledger.open()
    story = Story(ledger, refused=faults.heal)
    try:
        faults.arm(number, when=when, error=error, lasting=lasting)
        await story.tell()
        faults.heal()
        await story.end()
    finally:
        faults.heal()
        await ledger.close()
    check_file(path)
    return story


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_promises_hold_whichever_statement_fails(
    when: When, lasting: bool, own_directory: Path
) -> None:
    for number in range(1, MANY):
        faults = Faults()
        path = own_directory / f"{number}.db"
        try:
            story = await tell(path, faults, number, when, io_error, lasting)
        except AssertionError as broken:
            broken.add_note(f"the fault was at statement {number}: {faults.seen[number - 1 : number]}")
            raise
        if not faults.struck:
            break
    assert number > 50, "a story has more statements than that"
