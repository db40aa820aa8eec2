"""Faults in the statements of a ledger's writing connections: the nth fails, before or after it is done."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from segundo.ledger.sqlite import file

When = Literal["before", "after"]
Error = Callable[[], BaseException]


def sqlite_error(kind: type[sqlite3.Error], text: str, code: int) -> sqlite3.Error:
    """An error as the `sqlite3` module raises it, with SQLite's own code."""
    error = kind(text)
    error.sqlite_errorcode = code
    return error


def io_error() -> sqlite3.Error:
    return sqlite_error(sqlite3.OperationalError, "disk I/O error", sqlite3.SQLITE_IOERR)


def full() -> sqlite3.Error:
    return sqlite_error(sqlite3.OperationalError, "database or disk is full", sqlite3.SQLITE_FULL)


def malformed() -> sqlite3.Error:
    return sqlite_error(sqlite3.DatabaseError, "database disk image is malformed", sqlite3.SQLITE_CORRUPT)


def interrupted() -> OSError:
    return InterruptedError(4, "Interrupted system call")


def commit(sql: str) -> bool:
    return sql == "COMMIT"


class Faults:
    """What befalls the statements of the connections that `connect` makes.

    They are counted from the last `arm` on. Only a ledger's writer runs statements, so they come one by one.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._strikes: Callable[[str], bool] = lambda sql: False
        self._when: When = "before"
        self._error: Error = io_error
        self._lasting = False
        self._struck = False
        self.before_connecting: Callable[[], None] = lambda: None

    def connect(self, path: Path, durability: file.Durability) -> sqlite3.Connection:
        self.before_connecting()
        return file.connect(path, durability, factory=partial(_Connection, self))

    def arm(
        self,
        strikes: "int | Callable[[str], bool]",
        *,
        when: When = "before",
        error: Error = io_error,
        lasting: bool = False,
    ) -> None:
        """From here on the nth statement fails, or those that `strikes` says; `lasting`: all after it too."""
        self.seen.clear()
        self._when, self._error, self._lasting, self._struck = when, error, lasting, False
        self._strikes = strikes if callable(strikes) else lambda sql: len(self.seen) == strikes

    def heal(self) -> None:
        self._strikes, self._lasting = lambda sql: False, False

    @property
    def struck(self) -> bool:
        """Whether a statement failed since the last `arm`."""
        return self._struck

    def run(self, sql: str, statement: Callable[[], Any]) -> Any:
        self.seen.append(sql)
        strikes = self._strikes(sql) or (self._lasting and self._struck)
        self._struck = self._struck or strikes
        if strikes and self._when == "before":
            raise self._error()
        result = statement()
        if strikes:
            raise self._error()
        return result


class Gate:
    """Stops the writer before the nth statement from here on, or the first that `at` says, until opened."""

    def __init__(self, faults: Faults, at: int | Callable[[str], bool]) -> None:
        self._reached, self._open = threading.Event(), threading.Event()
        self._here = at if callable(at) else lambda sql: len(faults.seen) == at
        faults.arm(self._wait)

    @property
    def reached(self) -> bool:
        return self._reached.is_set()

    def open(self) -> None:
        self._open.set()

    def _wait(self, sql: str) -> bool:
        if not self.reached and self._here(sql):
            self._reached.set()
            assert self._open.wait(30), "nobody opened the gate"
        return False


class _Connection(sqlite3.Connection):
    def __init__(self, faults: Faults, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._faults = faults

    def execute(self, sql: str, *parameters: Any) -> Any:
        return self._faults.run(sql, lambda: super(_Connection, self).execute(sql, *parameters))

    def executemany(self, sql: str, *parameters: Any) -> Any:
        return self._faults.run(sql, lambda: super(_Connection, self).executemany(sql, *parameters))


async def end_of_turn() -> None:
    """The turn of the loop ends, and what was asked of the ledger in it is posted to the writer."""
    await asyncio.sleep(0)
