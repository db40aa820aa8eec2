"""`segundo migrate`: the tables of a ledger on a server."""

from contextlib import closing

from segundo.errors import ConfigurationError, LedgerUnusable
from segundo.ledger.stores import need_driver, on_a_server


def migrate(url: str) -> str:
    """Make them, or bring them up to date; what was done. Raises LedgerUnusable."""
    if not on_a_server(url):
        raise ConfigurationError(f"{url} is a file: its tables are made and kept up to date by the app")
    need_driver()
    import psycopg

    from segundo.ledger.postgres.connecting import Place
    from segundo.ledger.postgres.migrations import SCHEMA_VERSION, migrate

    place = Place.at(url)
    try:
        with closing(place.connect()) as connection:
            done = migrate(connection, place)
    except psycopg.Error as error:
        raise LedgerUnusable(f"ledger {place} cannot be migrated: {error}") from error
    return f"{place}: {'now at' if done else 'already at'} version {SCHEMA_VERSION}"
