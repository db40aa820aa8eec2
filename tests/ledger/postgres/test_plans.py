"""The statements that are asked all the time seek in an index, however much history and backlog there is."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from segundo.ledger.postgres import statements
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
    "START": "records_pkey or owned",
    "NEXT_DUE": "claimable", "PUBLISHED": "published", "PUBLISH": "claimable", "LOSE": "published",
    "NEXT_TO_PUBLISH": "claimable", "SUCCEED": "records_pkey", "SETTLE": "records_pkey",
    "RELEASE": "records_pkey or owned", "RUNNING_OF": "owned", "SELECT_IDS": "records_pkey",
    "GLANCE": "records_pkey",
    "PRUNE": "expiring", "PROGRESS": "records_pkey", "QUEUES": "claimable",
}  # fmt: skip


@pytest.fixture(scope="module")
def filled(schemas: Schemas) -> Iterator[psycopg.Connection[Any]]:
    """A session on a schema with a history, a backlog, and what runs."""
    url = schemas.fresh()

    async def make() -> None:
        async with Stage.on(PostgresStore(url)):
            pass

    asyncio.run(make())
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
    plan = "\n".join(
        line for (line,) in filled.execute(f"EXPLAIN {text}".encode(), GIVEN.get(name, VALUES)).fetchall()
    )
    assert "Seq Scan on records" not in plan, plan
    assert any(index in plan for index in SEEKS[name].split(" or ")), plan  # an owner has few rows, or many
