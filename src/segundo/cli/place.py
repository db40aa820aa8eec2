"""Where the ledger is, and how a command changes it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from segundo.errors import ConfigurationError, LedgerUnavailable
from segundo.ledger.sqlite import MEMORY, SQLiteLedger
from segundo.settings import settings

T = TypeVar("T")

PATIENCE = 10.0  # seconds that a command waits for the ledger


def ledger_at(option: str | None) -> Path:
    """The file that --ledger names, else SEGUNDO_LEDGER, else ./segundo.db. Raises ConfigurationError."""
    named = settings({"ledger": option}).ledger
    if named == MEMORY:
        raise ConfigurationError(f"{MEMORY} is inside the process that made it; name a file")
    return Path(named)


def place_of(option: str | None) -> str:
    """The same, where it may be a server's URL, too."""
    named = settings({"ledger": option}).ledger
    if named == MEMORY:
        raise ConfigurationError(f"{MEMORY} is inside the process that made it; name a file or a server")
    return named


def change(path: Path, act: Callable[[SQLiteLedger], Awaitable[T]]) -> T:
    """Open the ledger as a writer, beside the app's own, and `act`. The file must exist: see `Visitor`."""
    return asyncio.run(_change(path, act))


async def _change(path: Path, act: Callable[[SQLiteLedger], Awaitable[T]]) -> T:
    ledger = SQLiteLedger(path, durability=settings({}).durability)
    await ledger.open()
    try:
        return await act(ledger)
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
