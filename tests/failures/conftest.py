"""Ledgers to break: each a file of its own, closed at the end of its test."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from segundo.ledger.sqlite import SQLiteLedger
from tests.failures.faults import Faults

OpenLedger = Callable[..., Any]


@pytest.fixture(scope="session")
def empty_ledger(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What is in the file of a new ledger: to write it is much faster than to make one for each fault."""
    path = tmp_path_factory.mktemp("empty") / "empty.db"

    async def make() -> None:
        ledger = SQLiteLedger(path)
        await ledger.open()
        await ledger.close()

    asyncio.run(make())
    return path.read_bytes()


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def opened(empty_ledger: bytes, own_directory: Path, faults: Faults) -> OpenLedger:
    """`async with opened("name", …) as ledger`: a new ledger, or the one of that name again."""

    @asynccontextmanager
    async def open_ledger(
        name: str = "ledger", faults: Faults = faults, **settings: Any
    ) -> AsyncIterator[SQLiteLedger]:
        path = own_directory / f"{name}.db"
        if not path.exists():
            path.write_bytes(empty_ledger)
        ledger = SQLiteLedger(path, connect=faults.connect, **{"durability": "normal", **settings})
        await ledger.open()
        try:
            yield ledger
        finally:
            faults.heal()
            await ledger.close()

    return open_ledger
