"""Every statement finds its rows by the index that its comment names, whatever the backlog."""

import inspect
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib import resources
from types import ModuleType
from typing import Any

import pytest

from segundo.ledger.sqlite import questions, statements

INDEXES = {
    *("claimable", "suspects", "owned", "live_keys", "expiring", "failed", "duplicates", "links_by_after"),
    "published",
}
WALKS = {"PRUNE_OLD", "LIVE", "ALL_THERE"}  # by hand: along the primary key
SORTS = {"CLAIM_IDS", "CLAIM_SUSPECT_IDS", "LONGEST"}  # only the ids asked for; only what runs


def texts(module: ModuleType) -> dict[str, str]:
    """The statements of a module by name, without the pieces that they are made of."""
    found: dict[str, str] = {}
    for name, value in vars(module).items():
        named = value.items() if isinstance(value, dict) else [("", value)]
        for key, text in named:
            if (
                name.isupper()
                and isinstance(text, str)
                and re.match(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE)", text)
            ):
                found[f"{name} {key}".strip()] = text
    return found


ITS_OWN, STATEMENTS = texts(statements), {**texts(statements), **texts(questions)}


def comments() -> dict[str, str]:
    """The comment above each statement: the last one before its name."""
    found: dict[str, str] = {}
    comment, fresh = "", False
    for line in inspect.getsource(statements).splitlines():
        if line.startswith("#"):
            comment = f"{comment} {line}" if fresh else line
        elif match := re.match(r"([A-Z_]+) = ", line):
            found[match[1]] = comment
        fresh = line.startswith("#")
    return found


COMMENTS = comments()


def comment_of(name: str) -> str:
    return COMMENTS[name.split()[0]]


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    schema = resources.files("segundo.ledger.sqlite").joinpath("schema.sql").read_text("utf-8")
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(schema)
        yield connection


def no_values(text: str) -> Any:
    names = set(re.findall(r":(\w+)", text))
    return dict.fromkeys(names) if names else (None,) * text.count("?")


def plan(connection: sqlite3.Connection, name: str) -> list[str]:
    text = STATEMENTS[name]
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", no_values(text))]


def sought(steps: list[str]) -> set[str]:
    """The indexes of ours that are sought in; the primary keys need no name."""
    return {match[1] for step in steps if (match := re.match(r"SEARCH .* INDEX (\w+)", step))} & INDEXES


@pytest.mark.parametrize("name", ITS_OWN)
def test_a_statement_seeks_in_no_index_that_its_comment_does_not_name(
    connection: sqlite3.Connection, name: str
) -> None:
    assert [index for index in sought(plan(connection, name)) if index not in comment_of(name)] == []


def test_a_comment_names_no_index_that_none_of_its_statements_uses(connection: sqlite3.Connection) -> None:
    used: dict[str, set[str]] = {}
    for name in ITS_OWN:
        used.setdefault(comment_of(name), set()).update(sought(plan(connection, name)))
    idle = {
        comment: [index for index in INDEXES if re.search(rf"\b{index}\b", comment) and index not in indexes]
        for comment, indexes in used.items()
    }
    assert {comment: indexes for comment, indexes in idle.items() if indexes} == {}


@pytest.mark.parametrize("name", sorted(STATEMENTS.keys() - WALKS))
def test_no_statement_scans_the_records(connection: sqlite3.Connection, name: str) -> None:
    assert "SCAN records" not in plan(connection, name)


@pytest.mark.parametrize("name", sorted(STATEMENTS.keys() - SORTS))
def test_no_statement_sorts(connection: sqlite3.Connection, name: str) -> None:
    assert [step for step in plan(connection, name) if "TEMP B-TREE" in step] == []


@pytest.mark.parametrize("name", sorted(WALKS | SORTS))
def test_an_exception_is_one(connection: sqlite3.Connection, name: str) -> None:
    assert any(step == "SCAN records" or "TEMP B-TREE" in step for step in plan(connection, name))


def test_every_index_serves_a_statement(connection: sqlite3.Connection) -> None:
    there = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL")
    assert {name for (name,) in there} == INDEXES
    assert set[str]().union(*(sought(plan(connection, name)) for name in STATEMENTS)) == INDEXES


# The cost in SQLite's own operations, which do not depend on the machine

ENDED = "'succeeded', 0, NULL, 0"
KINDS = {  # how many of each: state, crashes, owner, finished_at
    "'queued', 0, NULL, NULL": 1,
    "'queued', 1, NULL, NULL": 1,
    "'waiting', 0, 'busy', NULL": 1,
    "'running', 0, 'other', NULL": 1,
    ENDED: 1,
}
FILL = """
WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {number})
INSERT INTO records (id, task, queue, priority, run_at, key, retention, format, created_at, attempts,
                     crash_limit, state, crashes, owner, finished_at)
SELECT '{kind}-' || n, 't', 'queue-' || (n % 3), n % 10, CASE WHEN n % 2 THEN n ELSE 1e9 END,
    '{kind}-' || n, 10, 1, 0, 1, 1, {columns} FROM n
"""
NOW = 1e6
IDS = json.dumps(["0-7", "1-7", "2-7", "3-7", "4-7"])
COSTS: dict[str, Any] = {
    "QUEUES": (),
    "SUSPECT_QUEUES": (),
    "NEXT_DUE": {"queue": "queue-1"},
    "CLAIM": {"queue": "queue-1", "owner": "me", "now": NOW, "limit": 5},
    "CLAIM_SUSPECT": {"queue": "queue-1", "owner": "me", "now": NOW, "limit": 1},
    "CLAIM_IDS": {"ids": IDS, "queues": None, "owner": "me", "now": NOW, "limit": 5},
    "LIVE_KEY": ("t", "0-7", "new"),
    "BEFORE": {"id": "0-7"},
    "RELEASE": (NOW, IDS, "busy"),
    "SUCCEED": (NOW, json.dumps({"3-7": 0})),
    "FREE": (IDS,),
    "SUCCESSFUL": (IDS,),
    "QUEUE_FREED": (NOW, IDS),
    "CANCEL": ("Cancelled", NOW, IDS),
    "CANCEL_BEHIND": (NOW, json.dumps({"3-7": "{}"})),
    "WAITS_FOR": (IDS,),
    "PROGRESS": ('"half"', "3-7", 0),
    "RUNNING_OF": ("me",),
    "PRUNE": (NOW, 5),
    "PROMISED": (IDS,),
    "SELECT_IDS": (IDS,),
    "SELECT": {"before": None, "state": None, "limit": 5},
    "FIND": {"prefix": "0-7"},
    "WALK": {"before": "2-7", "limit": 5},
}


def fill(connection: sqlite3.Connection, number: int) -> None:
    for kind, columns in enumerate(KINDS):
        connection.execute(FILL.format(number=number, kind=kind, columns=columns))
    connection.execute(
        "INSERT INTO links SELECT '3-' || substr(id, 3), id, 'run' FROM records WHERE state = 'waiting'"
    )


def operations(connection: sqlite3.Connection, name: str) -> int:
    """How many of SQLite's operations a statement takes; what it changes is undone."""
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1

    connection.execute("BEGIN")
    connection.set_progress_handler(count, 1)
    connection.execute(STATEMENTS[name], COSTS[name]).fetchall()
    connection.set_progress_handler(None, 0)
    connection.execute("ROLLBACK")
    return counted


@pytest.fixture(scope="module")
def few_and_many() -> Iterator[tuple[sqlite3.Connection, sqlite3.Connection]]:
    schema = resources.files("segundo.ledger.sqlite").joinpath("schema.sql").read_text("utf-8")
    connections = [sqlite3.connect(":memory:", isolation_level=None) for _ in range(2)]
    for connection, number in zip(connections, (100, 10_000), strict=True):
        connection.executescript(schema)
        fill(connection, number)
    yield connections[0], connections[1]
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("name", COSTS)
def test_a_hundred_times_as_many_records_cost_a_statement_nothing(
    few_and_many: tuple[sqlite3.Connection, sqlite3.Connection], name: str
) -> None:
    few, many = (operations(connection, name) for connection in few_and_many)
    assert many <= 1.1 * few + 5
