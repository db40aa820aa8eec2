"""A real PostgreSQL server for this run of pytest, and an empty schema of it for each test."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from scripts.ports import free_port
from scripts.services import Postgres

# What a crash of the server would take is of no interest, but to those tests that start one of their own.
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=300")


@contextmanager
def a_server(*options: str) -> Iterator[Postgres]:
    """A server of its own, on a free port and in a folder that goes with it."""
    if Postgres.program() is None:
        pytest.skip("PostgreSQL is not installed: `make services`")
    folder = Path(tempfile.mkdtemp(prefix="segundo-test-"))
    folder.chmod(0o755)  # the server's user is another than root
    server = Postgres(folder / "server", free_port(), options)
    try:
        yield server.start()
    finally:
        server.remove()
        shutil.rmtree(folder)


class Schemas:
    """Schemas of one server. One is made once, and emptied for who comes next: that is quicker."""

    def __init__(self, server: Postgres) -> None:
        self.server = server
        self._connection = psycopg.connect(server.url(), autocommit=True)
        self._free: list[str] = []
        self._made = 0

    def take(self) -> str:
        """The URL of a ledger on an empty schema."""
        return self._free.pop() if self._free else self.fresh()

    def fresh(self) -> str:
        """The URL of a ledger on a schema that is not there."""
        return f"{self.server.url()}?schema=test_{self.number()}"

    def number(self) -> int:
        self._made += 1
        return self._made

    def do(self, statement: sql.Composed) -> None:
        self._connection.execute(statement)

    def give_back(self, url: str) -> None:
        tables = ("records", "links", "workers")
        if self.rows(url, "SELECT to_regclass('records')") == [(None,)]:
            return
        for table in tables:
            self._connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
        self._connection.execute("DELETE FROM meta WHERE name LIKE 'mov%'")
        self._free.append(url)

    def rows(self, url: str, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a query gives, past the library."""
        schema = url.rpartition("=")[2]
        self._connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(schema)))
        cursor = self._connection.execute(query, parameters)
        return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="session")
def schemas() -> Iterator[Schemas]:
    """Of the server of this run."""
    with a_server(*FAST) as server:
        schemas = Schemas(server)
        yield schemas
        schemas.close()


@pytest.fixture
def new_url(schemas: Schemas) -> Iterator[Callable[[], str]]:
    """Makes, with each call, the URL of a ledger that is not there yet."""
    urls: list[str] = []

    def make() -> str:
        urls.append(schemas.take())
        return urls[-1]

    yield make
    for url in urls:
        schemas.give_back(url)


@pytest.fixture
def url(new_url: Callable[[], str]) -> str:
    return new_url()
