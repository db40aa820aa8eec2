"""`segundo migrate`: the tables of a ledger on a server."""

from contextlib import closing

from segundo.cli.place import Place
from segundo.errors import ConfigurationError, LedgerUnusable
from segundo.ledger.stores import need_driver


def migrate(at: Place) -> str:
    """Make them, or bring them up to date; what was done. Raises LedgerUnusable."""
    if not isinstance(at, str):
        raise ConfigurationError(f"{at} is a file: its tables are made and kept up to date by the app")
    need_driver()
    import psycopg

    from segundo.ledger.postgres import connecting
    from segundo.ledger.postgres.migrations import SCHEMA_VERSION, migrate

    place = connecting.Place.at(at)
    try:
        with closing(place.connect()) as connection:
            done = migrate(connection, place)
    except psycopg.Error as error:
        raise LedgerUnusable(f"ledger {place} cannot be migrated: {error}") from error
    return f"{place}: {'now at' if done else 'already at'} version {SCHEMA_VERSION}"
