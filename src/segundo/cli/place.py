"""Where the ledger is, and how a command changes it."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

from segundo.errors import ConfigurationError, LedgerUnavailable
from segundo.ledger.sqlite import MEMORY
from segundo.ledger.sqlite.visitor import FileVisitor
from segundo.ledger.stores import ledger_at as stored_at
from segundo.ledger.stores import need_driver, on_a_server
from segundo.ledger.visiting import Visitor
from segundo.ledger.written import WrittenLedger
from segundo.settings import settings

T = TypeVar("T")

Place = Path | str  # a file, or a server's URL

PATIENCE = 10.0  # seconds that a command waits for the ledger


def ledger_at(option: str | None) -> Place:
    """What --ledger names, else SEGUNDO_LEDGER, else ./segundo.db: a file, or a server's URL as text.

    Raises ConfigurationError.
    """
    named = settings({"ledger": option}).ledger
    if named == MEMORY:
        raise ConfigurationError(f"{MEMORY} is inside the process that made it; name a file")
    return named if on_a_server(named) else Path(named)


def visit(place: Place) -> Visitor:
    """Who only looks. Raises LedgerUnusable if there is no ledger."""
    if isinstance(place, Path):
        return FileVisitor(place)
    need_driver()
    from segundo.ledger.postgres.visitor import ServerVisitor

    return ServerVisitor(place)


def change(place: Place, act: Callable[[WrittenLedger], Awaitable[T]]) -> T:
    """Open the ledger as a writer, beside the app's own, and `act`. It must exist: see `visit`."""
    return asyncio.run(_change(place, act))


async def _change(place: Place, act: Callable[[WrittenLedger], Awaitable[T]]) -> T:
    async with opened(place) as ledger:
        me = f"segundo:{secrets.token_hex(8)}"
        await in_time(ledger.join(me))  # so that nobody moves its records meanwhile
        try:
            return await act(ledger)
        finally:
            with suppress(LedgerUnavailable):  # what was done is done; who is gone is soon known to be dead
                await in_time(ledger.leave(me))


@asynccontextmanager
async def opened(place: Place) -> AsyncGenerator[WrittenLedger]:
    """The ledger there, to be written to by who has not joined it. It is made if it does not exist."""
    ledger = stored_at(str(place), durability=settings({}).durability, record_timeout=PATIENCE)
    await ledger.open()
    try:
        yield ledger
    finally:
        await ledger.close()


async def in_time(answer: Awaitable[T]) -> T:
    """Wait for one change, no longer than a person would. Raises LedgerUnavailable."""
    try:
        return await asyncio.wait_for(answer, PATIENCE)
    except TimeoutError:
        raise LedgerUnavailable(
            f"the ledger did not answer within {PATIENCE:g} s: another program holds its lock. Look what "
            "became of this before you try again"
        ) from None
