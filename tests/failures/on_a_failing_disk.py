"""Tells the story of `story.py` on a disk that fails at the nth operation, for one n after the other.

Run as a module on the disk of `disk.py`: kind of operation, errno, how many fail ("once", "lasting", "torn"),
and which share of all n is tried, drawn by a seed. "open" before these: it is the opening that fails.
"""

import asyncio
import errno
import shutil
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random

from segundo.errors import LedgerUnusable
from segundo.ledger.sqlite import SQLiteLedger, file
from tests.failures.disk import LEDGER, Disk, Op
from tests.failures.story import ME, Story, call, check_file

OFTEN = 8  # pages in the WAL until they are merged into the file: within each story
MOST = 10_000  # operations that a story can have

Arm = Callable[[], None]


def connect(path: Path, durability: file.Durability) -> sqlite3.Connection:
    connection = file.connect(path, durability)
    connection.execute(f"PRAGMA wal_autocheckpoint = {OFTEN}")
    return connection


def make_empty(path: Path) -> bytes:
    async def make() -> None:
        ledger = SQLiteLedger(path, connect=connect)
        await ledger.open()
        await ledger.close()

    asyncio.run(make())
    return path.read_bytes()


async def tell(disk: Disk, arm: Arm, path: Path, empty: bytes) -> None:
    """A story that the fault falls into."""
    await asyncio.to_thread(path.write_bytes, empty)
    ledger = SQLiteLedger(path, connect=connect)
    await ledger.open()
    try:
        story = Story(ledger, refused=disk.heal)
        arm()
        await story.tell()
        disk.heal()
        await story.end()
    finally:
        disk.heal()
        await ledger.close()
    check_file(path)


async def open_anew(disk: Disk, arm: Arm, path: Path, empty: bytes) -> None:
    """A new ledger whose making the fault falls into: it opens, or says why not, and then it opens."""
    arm()
    try:
        first = SQLiteLedger(path, connect=connect)
        await first.open()
        await first.close()
    except LedgerUnusable:
        pass
    disk.heal()
    ledger = SQLiteLedger(path, connect=connect)
    await ledger.open()
    (record,) = await ledger.record([call()], owner=ME)
    await ledger.close()
    check_file(path, [record.id])


def loop(what: str, kind: str, code: str, how: str, share: str, seed: str) -> int:
    """How many faults there were until one more was too many."""
    disk, folder, chance = Disk(), Path.cwd() / "stories", Random(seed)
    empty = make_empty(Path.cwd() / "empty.db")
    run: Callable[..., Awaitable[None]] = {"tell": tell, "open": open_anew}[what]
    for nth in range(1, MOST):
        if chance.random() > float(share):
            continue
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        number = 0 if how == "lasting" else 1
        arm = partial(disk.arm, Op[kind], nth, error=getattr(errno, code), number=number, torn=how == "torn")
        try:
            asyncio.run(run(disk, arm, folder / LEDGER, empty))
        except BaseException as broken:
            broken.add_note(f"the fault was at {kind} {nth}: {code}, {how}")
            raise
        if not disk.failed:
            return nth - 1
    raise AssertionError("it never passes without a fault")


if __name__ == "__main__":
    print(loop(*sys.argv[1:]))
