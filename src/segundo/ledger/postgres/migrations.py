"""The ledger's schema on the server: made, and brought up to date, by one process at a time."""

from importlib import resources

import psycopg
from psycopg import sql

from segundo.errors import LedgerUnusable
from segundo.ledger.postgres.connecting import Connection, Place

SCHEMA_VERSION = 1
OLDEST_PROGRAM = 1  # the oldest schema version whose programs may still use this schema

# Who comes second waits, and finds it done (test_two_processes_that_migrate_at_once_make_one_schema).
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('segundo.migrate.' || %s, 0))"
EXISTS = "SELECT to_regclass(%s) IS NOT NULL"
META = "SELECT name, value FROM meta WHERE name IN ('schema_version', 'oldest_program')"
SET_META = "INSERT INTO meta VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value"


def migrate(connection: Connection, place: Place) -> bool:
    """Make the schema what this program needs; whether there was anything to do. Raises LedgerUnusable.

    All or nothing. Without a need it changes nothing, and needs no right to.
    """
    if not _is_old(connection, place):
        return False
    try:
        with connection.transaction():
            connection.execute(LOCK, (place.schema,))
            if not _is_old(connection, place):
                return False
            # Not IF NOT EXISTS: even that needs the right to create schemas, and this one may be given to us.
            if connection.execute("SELECT to_regnamespace(%s)", (place.schema,)).fetchone() == (None,):
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(place.schema)))
            for statement in _steps(_version(connection, place)):
                connection.execute(statement)
            connection.execute(SET_META, ("schema_version", str(SCHEMA_VERSION)))
            connection.execute(SET_META, ("oldest_program", str(OLDEST_PROGRAM)))
    except psycopg.errors.InsufficientPrivilege as error:
        raise LedgerUnusable(
            f"ledger {place}: this role may not make or change its tables ({_first_line(error)}). Run "
            "`segundo migrate --ledger URL` with a role that may, before the app starts"
        ) from error
    return True


def version(connection: Connection, place: Place) -> int:
    """The version of the schema that is there; 0 if there is none."""
    return _version(connection, place)


def _is_old(connection: Connection, place: Place) -> bool:
    found = _version(connection, place)
    if found > SCHEMA_VERSION:
        oldest = _meta(connection).get("oldest_program", found)
        if oldest > SCHEMA_VERSION:
            raise LedgerUnusable(
                f"ledger {place} was made by a newer Segundo (schema {found}); upgrade this one"
            )
    return found < SCHEMA_VERSION


def _version(connection: Connection, place: Place) -> int:
    row = connection.execute(EXISTS, (f"{place.schema}.meta",)).fetchone()
    if row != (True,):
        return 0
    return _meta(connection).get("schema_version", 0)


def _meta(connection: Connection) -> dict[str, int]:
    return {name: int(value) for name, value in connection.execute(META).fetchall()}


def _steps(found: int) -> list[bytes]:
    """What leads from the version that was found to ours."""
    whole = resources.files("segundo.ledger.postgres").joinpath("schema.sql").read_bytes()
    return [whole] if found == 0 else []


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
