"""The ledger's file: made with what the promises need, and refused with a reason where it cannot be used."""

import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from segundo.errors import LedgerUnavailable, LedgerUnusable
from segundo.ledger.sqlite import MEMORY, SQLiteLedger
from segundo.ledger.sqlite.file import APPLICATION_ID, SCHEMA_VERSION
from tests.ledger.actors import SPAWN, Order, a_process
from tests.ledger.suite import SQLiteStore, Stage, call
from tests.support import ledger_rows, wait_until

LEDGER = "ledger.db"


def pragma(path: Path, name: str) -> Any:
    with closing(sqlite3.connect(path)) as connection:
        (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return value


def files_in(folder: Path) -> dict[str, str]:
    """The files and their modes."""
    return {file.name: oct(file.stat().st_mode & 0o777) for file in sorted(folder.iterdir())}


def allow(folder: Path, file_mode: int, *, folder_mode: int) -> None:
    for file in folder.iterdir():
        file.chmod(file_mode)
    folder.chmod(folder_mode)


def write(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


async def opened_once(path: Path) -> Path:
    ledger = SQLiteLedger(path)
    await ledger.open()
    await ledger.close()
    return path


async def refusal(path: Path) -> str:
    """What is said to who opens it."""
    with pytest.raises(LedgerUnusable) as refused:
        await SQLiteLedger(path).open()
    assert str(path) in str(refused.value)
    return str(refused.value)


@pytest.fixture
def generous_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("generous_umask")
async def test_every_file_of_a_ledger_is_its_owners_alone(tmp_path: Path) -> None:
    ledger = SQLiteLedger(tmp_path / LEDGER)
    await ledger.open()
    await ledger.join("me")
    modes = files_in(tmp_path)
    await ledger.close()
    names = [LEDGER, f"{LEDGER}-lock", f"{LEDGER}-shm", f"{LEDGER}-wal"]
    assert modes == dict.fromkeys(names, "0o600")


async def test_a_new_file_says_what_it_is_and_how_it_is_kept(tmp_path: Path) -> None:
    path = await opened_once(tmp_path / LEDGER)
    incremental = 2
    assert pragma(path, "application_id") == APPLICATION_ID
    assert pragma(path, "user_version") == SCHEMA_VERSION
    assert pragma(path, "auto_vacuum") == incremental
    assert pragma(path, "journal_mode") == "wal"
    assert ledger_rows(path, "SELECT * FROM meta") == [{"name": "oldest_reader", "value": "1"}]


async def test_every_table_and_column_has_a_strict_meaning_for_missing_values(tmp_path: Path) -> None:
    """What has no value is NULL; a column that always has one says so, and the file refuses the rest."""
    path = await opened_once(tmp_path / LEDGER)
    with pytest.raises(sqlite3.IntegrityError, match="NOT NULL"):
        write(path, "INSERT INTO records (id, task) VALUES ('a', 'b')")


async def test_a_file_is_found_again_with_all_that_is_in_it(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / LEDGER)
    async with Stage.on(store) as stage:
        record = await stage.running()
    async with Stage.on(store) as again:
        assert again.records() == {record.id: record}


async def test_the_last_to_close_leaves_everything_in_the_one_file(tmp_path: Path) -> None:
    async with Stage.on(SQLiteStore(tmp_path / LEDGER)) as stage:
        record = await stage.queued()
        await stage.another("other")
    assert list(files_in(tmp_path)) == [LEDGER, f"{LEDGER}-lock"]
    assert [row["id"] for row in ledger_rows(tmp_path / LEDGER)] == [record.id]


async def test_an_empty_file_becomes_a_ledger_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / LEDGER
    path.touch()
    allow(tmp_path, 0o640, folder_mode=0o700)
    await opened_once(path)
    assert pragma(path, "application_id") == APPLICATION_ID
    assert files_in(tmp_path)[LEDGER] == "0o640"


async def test_a_path_with_any_character_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "our ledger?mode=ro#1 %41é.db"
    async with Stage.on(SQLiteStore(path)) as stage:
        record = await stage.queued()
        assert stage.records() == {record.id: record}
        assert await stage.ledger.select() == [record]
    assert list(files_in(tmp_path)) == [path.name, f"{path.name}-lock"]


async def test_a_path_is_meant_from_where_the_ledger_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = SQLiteLedger(LEDGER)
    os.mkdir("elsewhere")
    monkeypatch.chdir("elsewhere")
    await ledger.open()
    await ledger.close()
    assert (tmp_path / LEDGER).exists()
    assert ledger.path == tmp_path / LEDGER


# Refused


@pytest.mark.parametrize("content", [b"hello " * 1000, b"note", b"SQLite format 3\0" + b"\xff" * 5000])
async def test_a_file_that_is_no_sqlite_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / LEDGER
    path.write_bytes(content)
    assert "cannot be opened" in await refusal(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE other (a)", "PRAGMA user_version = 7", "PRAGMA application_id = 7"]
)
async def test_a_sqlite_file_of_another_program_is_refused_and_left_as_it_is(
    tmp_path: Path, statement: str
) -> None:
    path = tmp_path / LEDGER
    write(path, statement)
    content = path.read_bytes()
    assert "not a ledger of Segundo" in await refusal(path)
    assert path.read_bytes() == content


async def test_a_newer_ledger_that_asks_for_a_newer_program_is_refused(tmp_path: Path) -> None:
    path = await opened_once(tmp_path / LEDGER)
    newer = SCHEMA_VERSION + 1
    write(path, f"PRAGMA user_version = {newer}", f"UPDATE meta SET value = '{newer}'")
    assert f"newer Segundo (schema {newer}); upgrade" in await refusal(path)


async def test_a_newer_ledger_that_older_programs_may_still_open_is_opened(tmp_path: Path) -> None:
    path = await opened_once(tmp_path / LEDGER)
    write(
        path,
        f"PRAGMA user_version = {SCHEMA_VERSION + 1}",
        "ALTER TABLE records ADD COLUMN news TEXT",
    )
    ledger = SQLiteLedger(path)
    await ledger.open()
    await ledger.join("me")
    (record,) = await ledger.record([call()], owner="me")
    assert [claimed.id for claimed in await ledger.claim("me", limit=1)] == [record.id]
    await ledger.close()
    assert pragma(path, "user_version") == SCHEMA_VERSION + 1


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    said = await refusal(tmp_path / "nowhere" / LEDGER)
    assert f"{tmp_path / 'nowhere'} does not exist" in said


async def test_a_folder_is_no_ledger(tmp_path: Path) -> None:
    assert "no file" in await refusal(tmp_path)


async def test_a_damaged_ledger_is_refused(tmp_path: Path) -> None:
    path = await opened_once(tmp_path / LEDGER)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)
    assert "cannot be opened" in await refusal(path)


async def test_a_ledger_that_was_refused_can_be_opened_when_the_reason_is_gone(tmp_path: Path) -> None:
    path = tmp_path / LEDGER
    path.write_bytes(b"no ledger" * 100)
    ledger = SQLiteLedger(path)
    with pytest.raises(LedgerUnusable):
        await ledger.open()
    with pytest.raises(LedgerUnavailable, match="not open"):
        await ledger.select()
    path.unlink()
    await ledger.open()
    assert await ledger.select() == []
    await ledger.close()


# As a user with few rights

AS_NOBODY = """
import asyncio, os, sys
from segundo.errors import LedgerUnusable
from segundo.ledger.sqlite import SQLiteLedger

async def open_and_close(path):
    ledger = SQLiteLedger(path)
    await ledger.open()
    await ledger.close()

asyncio.run(open_and_close("memory://"))  # so that everything is imported while it may be read
if os.getuid() == 0:  # who may do everything, so these tests would show nothing
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    asyncio.run(open_and_close(sys.argv[1]))
except LedgerUnusable as error:
    print("refused:", error)
"""


def opened_as_nobody(path: Path) -> str:
    command = [sys.executable, "-c", AS_NOBODY, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody can reach, and write into."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)
        os.chmod(folder, 0o777)


async def test_a_file_that_may_only_be_read_is_refused(public: Path) -> None:
    path = await opened_once(public / LEDGER)
    allow(public, 0o444, folder_mode=0o777)
    assert "cannot be read and written by this user" in opened_as_nobody(path)


def test_a_folder_that_nothing_may_be_made_in_is_refused(public: Path) -> None:
    public.chmod(0o555)
    assert "cannot be created: Permission denied" in opened_as_nobody(public / LEDGER)
    assert list(public.iterdir()) == []


async def test_a_file_in_a_folder_that_nothing_may_be_made_in_is_refused(public: Path) -> None:
    path = await opened_once(public / LEDGER)
    os.unlink(f"{path}-lock")
    allow(public, 0o666, folder_mode=0o555)
    assert f"{LEDGER}-lock cannot be opened: Permission denied" in opened_as_nobody(path)


async def test_a_file_whose_log_cannot_be_made_is_refused(public: Path) -> None:
    path = await opened_once(public / LEDGER)
    allow(public, 0o666, folder_mode=0o555)
    assert "cannot be opened" in opened_as_nobody(path)


# Opened more than once


async def test_two_processes_that_make_the_same_file_at_once_have_one_ledger(tmp_path: Path) -> None:
    barrier = SPAWN.Barrier(2)
    with a_process(barrier) as one, a_process(barrier) as other:
        for number in range(10):
            store = SQLiteStore(tmp_path / f"ledger-{number}.db")
            for actor in (one, other):
                actor.begin([Order("open", (store,), together=True)])
            assert one.answers() == other.answers() == [None]
            for actor, owner in ((one, "one"), (other, "other")):
                actor.do("join", owner)
                actor.do("record", [call()], owner=owner)
                actor.do("close")
            assert len(store.records()) == 2
            assert ledger_rows(store.path, "SELECT count(*) AS n FROM meta") == [{"n": 1}]


async def test_a_ledger_opens_once_however_often_it_is_asked(tmp_path: Path) -> None:
    ledger = SQLiteLedger(tmp_path / LEDGER)
    await ledger.open()
    await ledger.join("me")
    await ledger.open()
    (record,) = await ledger.record([call(held=True)], owner="me")
    assert await ledger.rescue() == []
    assert await ledger.select() == [record]
    await ledger.close()


async def test_a_ledger_closes_once_however_often_it_is_asked(tmp_path: Path) -> None:
    ledger = SQLiteLedger(tmp_path / LEDGER)
    await ledger.close()
    await ledger.open()
    await ledger.close()
    await ledger.close()
    assert list(files_in(tmp_path)) == [LEDGER, f"{LEDGER}-lock"]


async def test_a_ledger_can_be_opened_again_after_it_was_closed(tmp_path: Path) -> None:
    ledger = SQLiteLedger(tmp_path / LEDGER)
    for number in range(1, 4):
        await ledger.open()
        await ledger.join(f"life-{number}")
        await ledger.record([call()], owner=f"life-{number}")
        assert len(await ledger.select()) == number
        await ledger.leave(f"life-{number}")
        await ledger.close()


@pytest.mark.parametrize(
    "use",
    [
        lambda ledger: ledger.join("me"),
        lambda ledger: ledger.record([call()], owner="me"),
        lambda ledger: ledger.claim("me", limit=1),
        lambda ledger: ledger.select(),
        lambda ledger: ledger.next_due(),
        lambda ledger: ledger.rescue(),
    ],
)
async def test_a_ledger_that_is_not_open_does_nothing_and_says_so(
    tmp_path: Path, use: Callable[[SQLiteLedger], Any]
) -> None:
    ledger = SQLiteLedger(tmp_path / LEDGER)
    with pytest.raises(LedgerUnavailable, match="is not open"):
        await use(ledger)
    assert files_in(tmp_path) == {}


async def test_what_was_posted_before_the_close_is_still_done(tmp_path: Path) -> None:
    ledger = SQLiteLedger(tmp_path / LEDGER)
    await ledger.open()
    await ledger.join("me")
    requests = [asyncio.ensure_future(ledger.record([call()], owner="me")) for _ in range(50)]
    await asyncio.sleep(0)
    await ledger.close()
    recorded = [record.id for (record,) in await asyncio.gather(*requests)]
    assert sorted(recorded) == [row["id"] for row in ledger_rows(tmp_path / LEDGER)]


async def test_a_ledger_in_memory_touches_no_disk_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ledger = SQLiteLedger(MEMORY)  # perhaps on an event loop
    assert os.listdir(tmp_path) == []
    await ledger.open()
    assert ledger.path.parent.parent == tmp_path
    await ledger.close()


async def test_a_ledger_in_memory_is_its_own_and_leaves_nothing() -> None:
    one, other = SQLiteLedger(MEMORY), SQLiteLedger(MEMORY)
    for ledger in (one, other):
        await ledger.open()
        await ledger.join("me")
    await one.record([call()], owner="me")
    assert (len(await one.select()), len(await other.select())) == (1, 0)
    folders = [ledger.path.parent for ledger in (one, other)]
    await one.leave("me")
    await one.close()
    await other.close()  # of which an owner lives on, as where a thread still runs a task
    assert [folder.exists() for folder in folders] == [False, True]
    del ledger, other
    wait_until(lambda: gc.collect() >= 0 and not folders[1].exists())
