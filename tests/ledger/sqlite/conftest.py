"""Here the ledger is one in a SQLite file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ledger.suite import SQLiteStore


@pytest.fixture
def new_store(tmp_path: Path) -> Callable[[], SQLiteStore]:
    return lambda: SQLiteStore(tmp_path / "ledger.db")
