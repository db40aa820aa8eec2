"""The kinds of ledger that the whole suite runs on."""

from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path

import pytest

from tests.ledger.suite import PostgresStore, SQLiteStore, Stage, Store

Make = Callable[[], Store]


def _sqlite(request: pytest.FixtureRequest) -> Make:
    folder: Path = request.getfixturevalue("tmp_path")
    numbers = count()

    def make() -> Store:
        place = folder / f"store-{next(numbers)}"
        place.mkdir()
        return SQLiteStore(place / "ledger.db")

    return make


def _postgres(request: pytest.FixtureRequest) -> Make:
    new_url: Callable[[], str] = request.getfixturevalue("new_url")
    return lambda: PostgresStore(new_url())


STORES: dict[str, Callable[[pytest.FixtureRequest], Make]] = {"sqlite": _sqlite, "postgres": _postgres}


KINDS = [pytest.param(kind, marks=[pytest.mark.postgres] * (kind == "postgres")) for kind in STORES]


@pytest.fixture(params=KINDS)
def new_store(request: pytest.FixtureRequest) -> Make:
    """Makes an empty store with each call."""
    return STORES[request.param](request)


@pytest.fixture
def store(new_store: Make) -> Store:
    return new_store()


@pytest.fixture
async def stage(store: Store) -> AsyncIterator[Stage]:
    async with Stage.on(store) as stage:
        yield stage
