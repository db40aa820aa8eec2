"""Each store has its own statements; what the changes that they share ask of them is the same."""

import re
from pathlib import Path
from types import ModuleType

import pytest

from segundo import ledger
from segundo.ledger.postgres import statements as postgres
from segundo.ledger.sqlite import statements as sqlite

SHARED = Path(ledger.__file__).parent
USED = sorted(
    {name for file in SHARED.glob("*.py") for name in re.findall(r"\.sql\.([A-Z_]+)", file.read_text())}
)


def columns(store: ModuleType, name: str) -> list[str] | None:
    """What a statement gives, in order; None if it gives no rows."""
    statement = " ".join(getattr(store, name).split())
    given = re.search(r"RETURNING (.*)$", statement) or re.match(
        r"SELECT (?:DISTINCT )?(.*?) FROM ", statement
    )
    return None if given is None else [re.sub(r"^.*\.", "", column.strip()) for column in given[1].split(",")]


def parameters(store: ModuleType, name: str) -> int | set[str]:
    """The names of a statement's parameters, or how many it has if they have none."""
    statement = re.sub(r"'[^']*'", "", getattr(store, name))
    named = set(re.findall(r"%\((\w+)\)s", statement)) | set(re.findall(r"(?<!:):([a-z_]+)", statement))
    return named or statement.count("?") + statement.count("%s")


@pytest.mark.parametrize("name", USED)
def test_a_statement_has_the_same_parameters_and_gives_the_same_columns_in_each_store(name: str) -> None:
    assert columns(sqlite, name) == columns(postgres, name)
    assert parameters(sqlite, name) == parameters(postgres, name)
