"""The failure loop: the 1st, 2nd, … nth statement fails, until a story passes without a fault."""

import pytest

from tests.failures.conftest import OpenLedger
from tests.failures.faults import Faults, When, full, interrupted, io_error, malformed
from tests.failures.story import Story, check_file

MANY = 1000  # no story has so many statements
# Of a commit that is done nobody says that the disk was full: its last frame was not written.
ERRORS = {"before": (io_error, full, malformed, interrupted), "after": (io_error, malformed, interrupted)}


async def tell(opened: OpenLedger, faults: Faults, number: int, when: When, lasting: bool) -> None:
    """One story with a fault at its nth statement; a lasting fault is gone once somebody was told of it."""
    async with opened(f"story-{number}", faults) as ledger:
        story = Story(ledger, refused=faults.heal)
        errors = ERRORS[when]
        faults.arm(number, when=when, error=errors[number % len(errors)], lasting=lasting)
        await story.tell()
        faults.heal()
        await story.end()
    check_file(ledger.path)


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_promises_hold_whichever_statement_fails(
    when: When, lasting: bool, opened: OpenLedger
) -> None:
    for number in range(1, MANY):
        faults = Faults()
        try:
            await tell(opened, faults, number, when, lasting)
        except AssertionError as broken:
            broken.add_note(f"the fault was at statement {number}: {faults.seen[number - 1 : number]}")
            raise
        if not faults.struck:
            break
    assert number > 50, "a story has more statements than that"
