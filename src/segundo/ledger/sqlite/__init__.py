"""The ledger in a SQLite file: one host, any number of processes."""

import functools
import logging
import os
import shutil
import sqlite3
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from segundo.errors import LedgerUnusable
from segundo.ledger import workers
from segundo.ledger.refused import Refused
from segundo.ledger.sqlite import file
from segundo.ledger.sqlite.reader import FileReader
from segundo.ledger.sqlite.turns import Turns, lock_file
from segundo.ledger.sqlite.writer import FileWriter
from segundo.ledger.written import WrittenLedger

logger = logging.getLogger("segundo.ledger")

MEMORY = "memory://"


class SQLiteLedger(WrittenLedger):
    """Records in one file, written by one thread with group commit. See `segundo.ledger.Ledger` for each
    method.

    `path`: the file, or "memory://" for a temporary one from `open` to `close`. `durability`:
    "full" (an fsync before each commit returns) or "normal" (a power loss may take the last commits).
    `record_timeout`: seconds that a request waits for its records. `clock`: unix seconds; every time in the
    ledger comes from it. `connect`: makes the connections that write, here a fault can be put in.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        durability: file.Durability = "full",
        record_timeout: float = 5.0,
        clock: Callable[[], float] = time.time,
        connect: Callable[[Path, file.Durability], sqlite3.Connection] = file.connect,
    ) -> None:
        self._in_memory = str(path) == MEMORY
        self._remove: Callable[[], object] | None = None  # its folder
        self.path = Path(path) if self._in_memory else Path(path).absolute()
        super().__init__(str(self.path), record_timeout)
        self._durability: file.Durability = durability
        self._clock = clock
        self._connect = connect
        self._numbers: dict[str, int] = {}

    # Life

    def _open(self) -> None:
        if self._in_memory and self._remove is None:
            self.path, self._remove = _temporary_path(self)
            self.name = str(self.path)
        file.prepare(self.path)
        self._turns = self._take_turns()
        try:
            with self._turns.turn():
                self._open_in_turn()
        except sqlite3.Error as error:
            self._turns.close()
            raise LedgerUnusable(f"ledger {self.path} cannot be opened: {error}") from error
        except BaseException:
            self._turns.close()
            raise
        self._writer.start()

    def _take_turns(self) -> Turns:
        path = lock_file(self.path)
        try:
            return Turns.at(path)
        except OSError as error:
            raise LedgerUnusable(f"ledger {self.path}: {path} cannot be opened: {error.strerror}") from error

    def _open_in_turn(self) -> None:
        with closing(self._connect(self.path, self._durability)) as connection:
            file.set_up(connection, self.path)
        self._refused = Refused()
        self._reader = FileReader(self.path, self._clock)
        try:
            self._writer = FileWriter(
                lambda: self._connect(self.path, self._durability),
                self._turns,
                refused=self._refused,
                in_place=self._in_place,
                clock=self._clock,
                changed=self._changed,
                asked=self._asked,
                answered=self._answered,
            )
            self._files = [f"{self.path}{suffix}" for suffix in ("", "-wal", "-shm")] + [
                str(self._turns.path)
            ]
            self._identity = _identity(self._files)
        except BaseException:
            self._reader.close()
            raise

    def _close(self, dead: bool) -> None:
        self._reader.close()  # before the writer, which merges the WAL into the file if it is the last
        while self._left:
            owner = self._left.pop()
            self._writer.post([(workers.Go(owner), functools.partial(self._gone, owner))])
        self._writer.stop()
        self._writer.join(self.record_timeout)
        if dead:
            for number in self._numbers.values():
                self._turns.die(number)
            self._numbers.clear()
        # A writer that still waits for the turn needs the lock file, and so does an owner that lives on.
        if not self._writer.is_alive() and not self._numbers:
            self._turns.close()
            if self._remove is not None and not dead:
                self._remove()  # here, and not when this object goes, which may be on an event loop
                self._remove = None

    def _gone(self, owner: str, forgotten: bool | None, error: BaseException | None) -> None:
        if forgotten:
            self._turns.die(self._numbers.pop(owner))

    async def join(self, owner: str, *, moving: bool = False) -> None:
        self._numbers[owner] = await self._change(workers.Join(owner, self._durability, moving=moving))

    def _in_place(self) -> bool:
        return _identity(self._files) == self._identity


def _temporary_path(ledger: SQLiteLedger) -> tuple[Path, Callable[[], object]]:
    """A path in a folder of its own; and what removes that, which what is never closed leaves to its end."""
    folder = tempfile.mkdtemp(prefix="segundo-")
    remove = weakref.finalize(ledger, shutil.rmtree, folder, ignore_errors=True)
    return Path(folder, "segundo.db"), remove


def _identity(files: Sequence[str]) -> list[tuple[int, int]] | None:
    """Which files they are; None if one is not there."""
    try:
        found = [os.stat(file) for file in files]
    except OSError:
        return None
    return [(file.st_dev, file.st_ino) for file in found]
