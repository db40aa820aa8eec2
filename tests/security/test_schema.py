"""What somebody puts into the file's schema: it calls nothing, and the doctor names it."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

import pytest

from segundo.cli import doctor
from segundo.cli.finding import Level
from segundo.errors import LedgerUnusable
from segundo.ledger.sqlite import SQLiteLedger, file
from segundo.ledger.sqlite.reader import FileReader
from segundo.ledger.sqlite.visitor import FileVisitor
from tests.ledger.suite import SQLiteStore, Stage
from tests.security.forging import alter
from tests.web.apps import LEDGER, records

CALLS: list[tuple[object, ...]] = []


def called(*values: object) -> str:
    """A function that an app, or an extension, has given to its connection."""
    CALLS.append(values)
    return "called"


async def a_ledger() -> None:
    async with Stage.on(SQLiteStore(LEDGER.absolute())) as stage:
        await stage.queued()


@contextmanager
def writer() -> Iterator[sqlite3.Connection]:
    with closing(file.connect(LEDGER.absolute(), "full")) as connection:
        yield connection


@contextmanager
def reader() -> Iterator[sqlite3.Connection]:
    with closing(FileReader(LEDGER.absolute())) as reader:
        yield reader._connection


@contextmanager
def visitor() -> Iterator[sqlite3.Connection]:
    with FileVisitor(LEDGER.absolute()) as visitor:
        yield visitor._connection


@pytest.mark.parametrize("connect", [writer, reader, visitor])
async def test_what_the_file_says_calls_no_function_that_is_not_harmless(
    connect: Callable[[], AbstractContextManager[sqlite3.Connection]],
) -> None:
    await a_ledger()
    alter("CREATE VIEW planted AS SELECT called(id) FROM records")
    with connect() as connection:
        connection.create_function("called", 1, called)
        assert connection.execute("SELECT called(1)").fetchall() == [("called",)]
        with pytest.raises(sqlite3.OperationalError, match="unsafe use of called"):
            connection.execute("SELECT * FROM planted").fetchall()


async def test_a_trigger_in_the_file_calls_nothing_outside_it_and_what_it_stops_is_refused() -> None:
    await a_ledger()
    alter(
        "CREATE TRIGGER planted AFTER INSERT ON records BEGIN SELECT called(new.id); END",
    )
    CALLS.clear()

    def connect(path: object, durability: file.Durability) -> sqlite3.Connection:
        connection = file.connect(LEDGER.absolute(), durability)
        connection.create_function("called", 1, called)
        return connection

    ledger = SQLiteLedger(LEDGER, connect=connect)
    await ledger.open()
    stage = Stage(SQLiteStore(LEDGER.absolute()))
    stage.ledger = ledger
    with pytest.raises(Exception, match="unsafe use of called"):
        await stage.queued()
    await ledger.close()
    assert CALLS == []
    assert len(records()) == 1


def test_the_doctor_names_triggers_and_views_and_leaves_tables_of_others_alone() -> None:
    asyncio.run(a_ledger())
    assert found("schema") == [(Level.OK, "1, application id 0x5365676f")]
    alter(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY)",
        "CREATE INDEX by_id ON orders (id)",
    )
    assert found("planted") == []
    alter(
        "CREATE TRIGGER spy AFTER INSERT ON records BEGIN DELETE FROM orders; END",
        "CREATE VIEW everything AS SELECT * FROM records",
    )
    ((level, text),) = found("planted")
    assert level is Level.WARNING
    assert text.startswith("trigger spy on records, view everything: nothing of Segundo's")
    assert found("schema") == [(Level.OK, "1, application id 0x5365676f")]


def test_the_doctor_names_an_index_that_is_gone() -> None:
    asyncio.run(a_ledger())
    alter("DROP INDEX claimable")
    ((level, text),) = found("schema")
    assert (level, text.partition(":")[0]) == (Level.PROBLEM, "claimable")


def found(subject: str) -> list[tuple[Level, str]]:
    findings = doctor.findings(LEDGER.absolute())
    return [(finding.level, finding.text) for finding in findings if finding.subject == subject]


async def test_a_file_with_a_table_that_takes_anything_is_not_opened() -> None:
    await a_ledger()
    alter(
        "ALTER TABLE records RENAME TO kept",
        "CREATE TABLE records AS SELECT * FROM kept",
    )
    with pytest.raises(LedgerUnusable, match="its records are not the tables that Segundo makes"):
        await SQLiteLedger(LEDGER).open()
    with pytest.raises(LedgerUnusable, match="restore a backup"):
        FileVisitor(LEDGER.absolute())
    alter("DROP TABLE records", "CREATE VIEW records AS SELECT * FROM kept")
    with pytest.raises(LedgerUnusable, match="its records are not"):
        await SQLiteLedger(LEDGER).open()


async def test_a_sqlite_without_strict_tables_is_refused_with_both_versions() -> None:
    with pytest.raises(LedgerUnusable, match=r"needs SQLite 3\.37\.0 or newer, and this Python has 3\.36\.1"):
        file.check_sqlite((3, 36, 1))
    file.check_sqlite(sqlite3.sqlite_version_info)
