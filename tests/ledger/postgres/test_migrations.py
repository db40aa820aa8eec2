"""The schema is made by whoever comes first, once, and by a role that may."""

import asyncio
from collections.abc import Callable
from contextlib import closing

import psycopg
import pytest
from psycopg import sql

from segundo.errors import LedgerUnusable
from segundo.ledger.postgres import PostgresLedger
from segundo.ledger.postgres.connecting import Place
from segundo.ledger.postgres.migrations import SCHEMA_VERSION, migrate, version
from tests.ledger.actors import Order, a_process
from tests.ledger.suite import PostgresStore, call, settlement
from tests.postgres import Schemas


@pytest.fixture
def fresh(schemas: Schemas) -> str:
    """Of a schema that nobody has made."""
    return schemas.fresh()


def test_what_is_up_to_date_is_left_alone(fresh: str) -> None:
    place = Place.at(fresh)
    with closing(place.connect()) as connection:
        assert version(connection, place) == 0
        assert migrate(connection, place) is True
        assert version(connection, place) == SCHEMA_VERSION
        assert migrate(connection, place) is False


async def test_two_processes_that_migrate_at_once_make_one_schema(schemas: Schemas) -> None:
    for _ in range(5):
        store = PostgresStore(schemas.fresh())
        with a_process() as one, a_process() as other:
            for actor in (one, other):
                actor.begin([Order("open", (store,))])
            assert [actor.answers() for actor in (one, other)] == [[None], [None]]


async def test_ledgers_that_open_at_once_in_one_process_make_one_schema(fresh: str) -> None:
    ledgers = [PostgresLedger(fresh) for _ in range(6)]
    await asyncio.gather(*(ledger.open() for ledger in ledgers))
    await asyncio.gather(*(ledger.close() for ledger in ledgers))


def test_a_migration_that_fails_leaves_nothing(fresh: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place.at(fresh)
    monkeypatch.setattr(
        "segundo.ledger.postgres.migrations._steps",
        lambda found: [b"CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT)", b"SELECT 1 / 0"],
    )
    with closing(place.connect()) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            migrate(connection, place)
        assert version(connection, place) == 0
        assert connection.execute("SELECT to_regnamespace(%s)", (place.schema,)).fetchone() == (None,)


async def test_a_schema_of_a_newer_segundo_that_this_one_cannot_use_is_refused(
    schemas: Schemas, fresh: str
) -> None:
    with closing(Place.at(fresh).connect()) as connection:
        migrate(connection, Place.at(fresh))
    newer = str(SCHEMA_VERSION + 1)
    schemas.rows(fresh, "UPDATE meta SET value = %s WHERE name = 'schema_version'", (newer,))
    ledger = PostgresLedger(fresh)
    await ledger.open()  # it says that ours may still use it
    await ledger.close()
    schemas.rows(fresh, "UPDATE meta SET value = %s WHERE name = 'oldest_program'", (newer,))
    with pytest.raises(LedgerUnusable, match="newer Segundo"):
        await PostgresLedger(fresh).open()


# A role of its own


@pytest.fixture
def role(schemas: Schemas) -> str:
    """A role that may nothing but connect."""
    name = f"app_{schemas.number()}"
    schemas.rows(schemas.server.url(), "SELECT 1")
    schemas.do(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    return name


# As docs/postgresql.md has it.
GRANTS = """
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};
"""


async def test_a_role_that_may_make_no_tables_says_who_is_to_make_them(fresh: str, role: str) -> None:
    with pytest.raises(LedgerUnusable, match="segundo migrate"):
        await PostgresLedger(fresh.replace("postgres@", f"{role}@")).open()


async def test_a_role_with_the_least_rights_can_do_all_that_a_ledger_does(
    schemas: Schemas, fresh: str, role: str
) -> None:
    place = Place.at(fresh)
    with closing(place.connect()) as connection:
        migrate(connection, place)
    names = {"schema": sql.Identifier(place.schema), "role": sql.Identifier(role)}
    schemas.do(sql.SQL(GRANTS).format(**names))
    await live(lambda: PostgresLedger(fresh.replace("postgres@", f"{role}@"), patience=0))


async def live(make: Callable[[], PostgresLedger]) -> None:
    """Every verb once."""
    ledger = make()
    await ledger.open()
    await ledger.join("me")
    first, second = call(held=True), call(key="k")
    await ledger.record([first, second], owner="me")
    await ledger.release("me", [first.id])
    one, other = await ledger.claim("me", limit=2)
    assert await ledger.progress(one.id, one.claim, '"half"')
    await ledger.beat("me", running=[one.id, other.id])
    assert await ledger.settle([settlement(one, children=(call(),)), settlement(other)]) == [True, True]
    await ledger.cancel((await ledger.select(limit=1))[0].id)
    (refused,) = await ledger.record([call(held=True)], owner="me")
    await ledger.forget("me", [refused.id])
    assert await ledger.rescue() == []
    await ledger.prune(older_than=0)
    await ledger.leave("me")
    await ledger.close()
