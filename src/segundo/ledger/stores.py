"""Which store a setting names: a file, or a database on a server, whose driver is loaded on first use."""

from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Literal

from segundo.errors import ConfigurationError, LedgerError
from segundo.ledger.mark import NAME
from segundo.ledger.sqlite import SQLiteLedger
from segundo.ledger.sqlite.visitor import FileVisitor
from segundo.ledger.written import WrittenLedger
from segundo.record import LIVE

DEFAULT = "segundo.db"  # where a ledger is that nobody names
SERVERS = ("postgresql://", "postgres://")


def on_a_server(ledger: str) -> bool:
    return ledger.startswith(SERVERS)


def ledger_at(ledger: str, *, durability: Literal["full", "normal"], record_timeout: float) -> WrittenLedger:
    """The ledger that a setting names; nothing is opened yet. Raises ConfigurationError without a driver."""
    if not on_a_server(ledger):
        return SQLiteLedger(ledger, durability=durability, record_timeout=record_timeout)
    need_driver()
    from segundo.ledger.postgres import PostgresLedger

    return PostgresLedger(ledger, durability=durability, record_timeout=record_timeout)


def left_behind(ledger: str) -> Path | None:
    """The file that an app on a server may have had before, if that has records to run."""
    file = Path(DEFAULT).absolute()
    if on_a_server(ledger) and file.is_file():
        with suppress(LedgerError), FileVisitor(file) as visitor:
            if NAME not in visitor.notes():
                found = any(any(visitor.records(state=state, task=None, limit=1)) for state in LIVE)
                return file if found else None
    return None


def name_of(ledger: str) -> str:
    """A setting as messages have it: a file's absolute path, or a server's URL without its password."""
    if not on_a_server(ledger):
        return str(Path(ledger).absolute())
    need_driver()
    from segundo.ledger.postgres.connecting import Place

    return str(Place.at(ledger))


def need_driver() -> None:
    """Raises ConfigurationError if what PostgreSQL needs is not installed."""
    try:
        for module in ("psycopg", "psycopg_pool"):
            import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f'a ledger on PostgreSQL needs its driver ({error}): pip install "segundo[postgres]"'
        ) from error
