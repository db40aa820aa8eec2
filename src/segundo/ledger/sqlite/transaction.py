"""One transaction of the file's writer: how a change meets SQLite."""

import operator
import os
import socket
import sqlite3
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from types import ModuleType
from typing import Any, ClassVar

from segundo.errors import SegundoError
from segundo.ledger.sqlite import statements
from segundo.ledger.sqlite.file import readable
from segundo.ledger.sqlite.turns import Turns
from segundo.ledger.transaction import COMMON, DeadWorker, Transaction, is_common
from segundo.record import Call, Record

SPARE = 256  # pages that are kept in any case, of 4 KiB
AT_ONCE = 512


class Inexact(Exception):
    """A statement was to change all of its rows, and did not: undo the batch, and apply it exactly."""


class FileTransaction(Transaction):
    """`exact`: statements tell which rows they change. Else they only count them, and a count that is too
    small raises Inexact. It also reads texts that are no UTF-8, where another raises an error of sqlite3.
    """

    sql: ClassVar[ModuleType] = statements
    wrong_call: ClassVar[tuple[type[Exception], ...]] = (
        *(SegundoError, ValueError, OverflowError),
        *(sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.DataError),
    )

    def __init__(
        self, connection: sqlite3.Connection, now: float, turns: Turns, *, exact: bool = False
    ) -> None:
        super().__init__(now)
        self.exact = exact
        self.turns = turns
        connection.text_factory = readable if exact else str
        self.run = connection.execute
        self._run_many = connection.executemany

    @property
    def has_links(self) -> bool:
        return self.value(statements.ANY_LINK) is not None

    def changed(self, statement: str, parameters: Any, ids: list[str], *, exact: bool = False) -> list[str]:
        """Mostly all, and then it need not return them: a row returned is a step of its own, in which another
        thread may take the interpreter.
        """
        if self.exact or exact:
            return [row[0] for row in self.run(f"{statement}RETURNING id", parameters).fetchall()]
        if self.run(statement, parameters).rowcount != len(ids):
            raise Inexact
        return ids

    def join(self, owner: str, durability: str) -> int:
        number = self.value(statements.JOINED, owner)
        if number is None:
            number = self.value(
                statements.JOIN, owner, socket.gethostname(), os.getpid(), durability, self.now
            )
        # Its lock is taken before anyone can see its row, so it never looks dead.
        if self.turns.live(number):
            # A number that was not kept goes to another process, which must not find it locked.
            self.if_undone(partial(self.turns.die, number))
        return int(number)

    def dead_workers(self) -> list[DeadWorker]:
        """The kernel says who is dead, never a clock: whose lock can be taken."""
        dead: list[DeadWorker] = []
        for number, owner, host, pid, stopping in self.run(statements.WORKERS).fetchall():
            if self.turns.bury(number):
                self.afterwards(partial(self.turns.die, number))
                dead.append(DeadWorker(number, owner, host, pid, bool(stopping)))
        return dead

    def hold(self, ids: Sequence[str]) -> None:
        """Nothing to do: nobody else writes during a turn."""

    def hold_keys(self, calls: Iterable[Call | Record]) -> None:
        """Nothing to do."""

    def gate(self, *, shut: bool = False) -> None:
        """Nothing to do."""

    def give_back(self) -> int:
        """What is free is used again, so only much of it is given back, a little at a time: each page that
        goes may move another, and requests wait meanwhile.
        """
        spare = self.value(statements.FREE_PAGES) - self.value(statements.PAGES) // 4
        pages = int(max(0, min(spare - SPARE, AT_ONCE)))
        for _ in range(pages):
            self.run(statements.GIVE_BACK)
        return pages

    def insert_whole(self, records: Sequence[Record]) -> None:
        self._run_many(statements.INSERT, records)

    def insert(self, records: Sequence[Record]) -> None:
        common = [record for record in records if is_common(record)]
        at = 0
        for rows, statement in statements.INSERT_COMMON.items():
            while len(common) - at >= rows:
                self.run(statement, _common_values(common[at : at + rows]))
                at += rows
        if len(common) < len(records):
            self._run_many(statements.INSERT, [record for record in records if not is_common(record)])


_of_common = operator.itemgetter(*map(Record._fields.index, COMMON))
_STATE, _COLUMNS = COMMON.index("state"), len(COMMON)


def _common_values(records: Sequence[Record]) -> list[Any]:
    values = list(chain.from_iterable(map(_of_common, records)))
    # A plain text is bound at once; of any other kind of str, sqlite3 first asks how to adapt it.
    values[_STATE::_COLUMNS] = [record.state.value for record in records]
    return values
