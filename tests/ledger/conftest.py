"""The kinds of ledger that the whole suite runs on."""

from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path

import pytest

from tests.ledger.suite import SQLiteStore, Stage, Store

STORES: dict[str, Callable[[Path], Store]] = {"sqlite": lambda folder: SQLiteStore(folder / "ledger.db")}


@pytest.fixture(params=STORES)
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Makes an empty store with each call."""
    numbers = count()

    def make() -> Store:
        folder = tmp_path / f"store-{next(numbers)}"
        folder.mkdir()
        return STORES[request.param](folder)

    return make


@pytest.fixture
def store(new_store: Callable[[], Store]) -> Store:
    return new_store()


@pytest.fixture
async def stage(store: Store) -> AsyncIterator[Stage]:
    async with Stage.on(store) as stage:
        yield stage
