"""Who enters a ledger while it is shut for a move, or comes back to it, does not get in."""

import asyncio

import psycopg
import pytest

from segundo.errors import LedgerMoved, LedgerUnavailable
from segundo.ledger.mark import NAME, Mark
from segundo.ledger.postgres import PostgresLedger, statements
from segundo.ledger.postgres.connecting import Place
from tests.ledger.suite import call
from tests.postgres import Schemas
from tests.support import wait_until_async

MARK = Mark("there", "moving:1", ended=False).write()
WAITING = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


def shut(session: "psycopg.Connection[tuple[object, ...]]") -> None:
    session.execute(statements.SET_META, (NAME, MARK))


async def test_who_enters_while_a_ledger_is_shut_finds_it_shut(url: str, schemas: Schemas) -> None:
    ledger = PostgresLedger(url)
    await ledger.open()
    with Place.at(url).connect() as mover:
        mover.execute("BEGIN")
        mover.execute(statements.SHUT)
        entering = asyncio.ensure_future(ledger.join("late"))
        await wait_until_async(lambda: schemas.rows(url, WAITING))
        shut(mover)
        mover.execute("COMMIT")
    with pytest.raises(LedgerMoved, match="moving to there"):
        await entering
    assert schemas.rows(url, "SELECT * FROM workers") == []
    await ledger.close()


async def test_who_was_taken_for_dead_does_not_come_back_to_a_ledger_that_is_shut(
    url: str, schemas: Schemas
) -> None:
    ledger = PostgresLedger(url, record_timeout=0.5)
    await ledger.open()
    await ledger.join("frozen")
    with Place.at(url).connect() as mover:
        mover.execute("DELETE FROM workers")
        shut(mover)
    with pytest.raises(LedgerUnavailable):
        await ledger.record([call()], owner="frozen")
    with pytest.raises(LedgerUnavailable, match="moving to there"):
        await ledger.claim("frozen", limit=1)
    assert schemas.rows(url, "SELECT * FROM workers") == schemas.rows(url, "SELECT * FROM records") == []
    await ledger.close(dead=True)
