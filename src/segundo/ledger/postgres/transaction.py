"""One transaction of the writer: how a change meets PostgreSQL, where others write at the same time."""

import json
import os
import socket
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any, ClassVar

import psycopg

from segundo.errors import SegundoError
from segundo.ledger.postgres import statements
from segundo.ledger.transaction import COMMON, DeadWorker, Transaction, is_common
from segundo.record import Call, Record, State


class ServerTransaction(Transaction):
    """`lease`: seconds that a worker lives from its last word. `may_rescue`: whether this process has been in
    touch with the server for long enough to say who is dead.
    """

    sql: ClassVar[ModuleType] = statements
    wrong_call: ClassVar[tuple[type[Exception], ...]] = (
        *(SegundoError, ValueError, OverflowError),
        *(psycopg.InterfaceError, psycopg.ProgrammingError, psycopg.IntegrityError, psycopg.DataError),
    )

    def __init__(
        self,
        connection: psycopg.Connection[tuple[Any, ...]],
        now: float,
        *,
        lease: float,
        may_rescue: bool,
    ) -> None:
        super().__init__(now)
        self.run = connection.execute
        self._cursor = connection.cursor
        self._lease = lease
        self._may_rescue = may_rescue
        self._held: set[str] = set()
        self._held_keys: set[str] = set()

    def join(self, owner: str, durability: str) -> int:
        who = {"id": owner, "host": socket.gethostname(), "pid": os.getpid(), "durability": durability}
        return int(self.value(statements.JOIN, **who, now=self.now, lease=self._lease))

    def dead_workers(self) -> list[DeadWorker]:
        """Whose lease has run out, by the server's clock."""
        if not self._may_rescue:
            return []
        dead = [DeadWorker._make(row) for row in self.run(statements.DEAD_WORKERS).fetchall()]
        if dead:
            self.run(statements.HOLD_OF, (json.dumps([worker.id for worker in dead]),))
        return dead

    def hold(self, ids: Sequence[str]) -> None:
        """In the ids' order, as everybody does, so that two seldom wait for each other."""
        more = set(ids) - self._held
        if more:
            self._held |= more
            self.run(statements.HOLD, (json.dumps(sorted(more)),))

    def hold_keys(self, calls: Iterable[Call | Record]) -> None:
        names = {json.dumps([call.task, call.key], default=str) for call in calls if call.key is not None}
        more = names - self._held_keys
        if more:
            self._held_keys |= more
            self.run(statements.HOLD_KEYS, (json.dumps(sorted(more)),))

    def gate(self, *, shut: bool = False) -> None:
        self.run(statements.SHUT if shut else statements.ENTER)

    def may_publish(self, queue: str) -> bool:
        """Who does not get it does not wait: a process may be frozen that has it."""
        return bool(self.value(statements.HOLD_WINDOW, queue))

    def changed(self, statement: str, parameters: Any, ids: list[str], *, exact: bool = False) -> list[str]:
        return [row[0] for row in self.run(f"{statement}RETURNING id", parameters).fetchall()]

    def insert_whole(self, records: Sequence[Record]) -> None:
        self.run(statements.INSERT_WHOLE, (json.dumps([record._asdict() for record in records]),))

    def insert(self, records: Sequence[Record]) -> None:
        self.queued = self.queued or any(record.state is State.QUEUED for record in records)
        common = [record for record in records if is_common(record)]
        if common:
            rows = [{name: getattr(record, name) for name in COMMON} for record in common]
            self.run(statements.INSERT_COMMON, (json.dumps(rows),))
        if len(common) < len(records):
            others = [record for record in records if not is_common(record)]
            self._cursor().executemany(statements.INSERT.encode(), others)
