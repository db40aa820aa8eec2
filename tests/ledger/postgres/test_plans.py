"""The statements that are asked all the time seek in an index, however much history and backlog there is."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from segundo.ledger.postgres import exchange, statements
from segundo.ledger.postgres.connecting import Place
from segundo.ledger.postgres.workers import Worker, Workers
from tests.ledger.suite import PostgresStore, Stage
from tests.postgres import Schemas

RECORDS = 40_000
FILL = """
INSERT INTO records (id, task, queue, priority, state, owner, crash_limit, format, created_at, run_at,
                     started_at, finished_at, published_until, retention)
SELECT lpad(to_hex(n), 36, '0'), 'tests:work', CASE WHEN n %% 3 = 0 THEN 'mails' ELSE 'default' END, n %% 10,
    state, CASE state WHEN 'running' THEN 'owner' || n %% 50 END, 3, 1, n, n, n,
    CASE state WHEN 'succeeded' THEN n END,
    CASE WHEN state = 'queued' AND n %% 40 = 0 THEN 1e9 END, 86400
FROM (SELECT n, CASE WHEN n %% 4 = 0 THEN 'queued' WHEN n %% 100 = 1 THEN 'running'
                ELSE 'succeeded' END AS state
      FROM generate_series(1, %s) AS n) AS made
"""
IDS = [f"{n:036x}" for n in (4, 8, 400)]
VALUES: dict[str, Any] = {
    "id": IDS[0], "ids": json.dumps(IDS), "queue": "default", "queues": None, "owner": "owner1", "now": 1e6,
    "limit": 10, "until": 2e6, "before": 1e6, "state": "succeeded", "claim": 1, "reason": None,
    "result": None, "error": None, "delay": 0.0, "failed": 0,
}  # fmt: skip
GIVEN: dict[str, tuple[Any, ...]] = {
    "HOLD": (json.dumps(IDS),),
    "SUCCEED": (1e6, json.dumps(dict.fromkeys(IDS, 1))),
    "RELEASE": (1e6, json.dumps(IDS), "owner1"),
    "RUNNING_OF": ("owner1",),
    "SELECT_IDS": (json.dumps(IDS),),
    "GLANCE": (json.dumps(IDS),),
    "FREE": (json.dumps(IDS),),
    "PRUNE": (1e4, 100),
    "PROGRESS": ("{}", IDS[0], 1),
}
SEEKS = {
    "CLAIM": "claimable", "CLAIM_SUSPECT": "suspects", "CLAIM_IDS": "records_pkey",
    "START": "records_pkey", "HOLD": "records_pkey",
    "NEXT_DUE": "claimable", "PUBLISHED": "published", "PUBLISH": "claimable", "LOSE": "published",
    "NEXT_TO_PUBLISH": "claimable", "SUCCEED": "records_pkey", "SETTLE": "records_pkey",
    "RELEASE": "records_pkey", "RUNNING_OF": "owned", "SELECT_IDS": "records_pkey",
    "GLANCE": "records_pkey",
    "PRUNE": "expiring", "PROGRESS": "records_pkey", "QUEUES": "claimable",
}  # fmt: skip


def make(url: str) -> None:
    async def open_once() -> None:
        async with Stage.on(PostgresStore(url)):
            pass

    asyncio.run(open_once())


@pytest.fixture(scope="module")
def filled(schemas: Schemas) -> Iterator[psycopg.Connection[Any]]:
    """A session on a schema with a history, a backlog, and what runs."""
    url = schemas.fresh()
    make(url)
    with psycopg.connect(schemas.server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(url.rpartition("=")[2])))
        connection.execute(FILL, (RECORDS,))
        connection.execute("VACUUM ANALYZE records")
        yield connection


@pytest.mark.postgres
@pytest.mark.parametrize("name", SEEKS)
def test_a_statement_of_every_day_seeks_in_its_index_and_scans_no_table(
    filled: psycopg.Connection[Any], name: str
) -> None:
    text: str = getattr(statements, name)
    plan = shown(filled.execute(f"EXPLAIN {text}".encode(), GIVEN.get(name, VALUES)))
    assert "Seq Scan on records" not in plan, plan
    assert seeks(name, plan), plan


@pytest.fixture
def grown(schemas: Schemas) -> Iterator[psycopg.Connection[Any]]:
    """A session of a ledger's, which has planned every statement while the ledger was empty."""
    url = schemas.fresh()
    make(url)
    with Place.at(url).connect() as connection:
        connection.prepare_threshold = None  # a statement is prepared by its name, and only so
        connection.execute("SET plan_cache_mode = force_generic_plan")  # as after it has run some times
        for name in SEEKS:
            connection.execute(f"PREPARE {name} AS {numbered(name)[0]}".encode())
            planned(connection, name)
        connection.execute(FILL, (RECORDS,))
        yield connection


def numbered(name: str) -> tuple[str, list[Any]]:
    """A statement as PREPARE takes it, and what is given to it."""
    numbers: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return f"${numbers.setdefault(found[1] or str(len(numbers)), len(numbers) + 1)}"

    text = re.sub(r"%(?:\((\w+)\))?s", number, getattr(statements, name))
    return text, list(GIVEN.get(name) or [VALUES[each] for each in numbers])


def planned(connection: psycopg.Connection[Any], name: str) -> str:
    given = [sql.Literal(value) for value in numbered(name)[1]]
    call = sql.SQL("{}({})" if given else "{}").format(sql.SQL(name), sql.SQL(", ").join(given))
    return shown(connection.execute(sql.SQL("EXPLAIN EXECUTE ") + call))


def shown(explained: psycopg.Cursor[Any]) -> str:
    return "\n".join(line for (line,) in explained.fetchall())


def seeks(name: str, plan: str) -> bool:
    """By its index; all of the primary key is no better than the table."""
    whole = re.search(r"records_pkey.*\n(?! *Index Cond)", plan)
    return not whole and SEEKS[name] in plan


@pytest.mark.postgres
def test_no_statement_that_was_planned_while_the_ledger_was_empty_scans_its_table(
    grown: psycopg.Connection[Any],
) -> None:
    assert [name for name in SEEKS if "Seq Scan on records" in planned(grown, name)] == []


@pytest.mark.postgres
def test_a_plan_that_was_made_while_the_ledger_was_empty_does_not_last(
    grown: psycopg.Connection[Any],
) -> None:
    workers = Workers(lease=30.0)
    workers.add(Worker(1, "me", "here", 1, "full"))
    workers.begin(grown)  # it renews the leases, for that is due
    plans = {name: planned(grown, name) for name in SEEKS}
    assert {name: plan for name, plan in plans.items() if not seeks(name, plan)} == {}


@pytest.mark.postgres
def test_an_exchange_seeks_by_id_though_the_server_knows_the_ledger_as_empty(
    grown: psycopg.Connection[Any],
) -> None:
    plan = shown(grown.execute(f"EXPLAIN {exchanged(grown)}".encode()))
    assert seeks("CLAIM_IDS", plan), plan
    assert "Seq Scan on records" not in plan, plan
    assert "claimable" not in plan, plan


@pytest.mark.postgres
def test_an_exchange_is_planned_once(filled: psycopg.Connection[Any]) -> None:
    text = exchanged(filled)
    for _ in range(10):
        filled.execute(text.encode())
    asked = "SELECT generic_plans > 0 FROM pg_prepared_statements WHERE name = 'exchange'"
    assert filled.execute(asked).fetchone() == (True,)


def exchanged(connection: psycopg.Connection[Any]) -> str:
    """What executes the second statement of an exchange, which is prepared now."""
    connection.execute(exchange.EXCHANGE.encode())
    ended, wanted = json.dumps({IDS[0]: 1}), json.dumps(IDS[1:])
    return f"EXECUTE exchange ('{ended}', '{{}}', '{wanted}', 'nobody', 1e6)"
