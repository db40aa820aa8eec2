"""One transaction of the writer: a connection, the moment it happens, and what must follow it."""

import json
import sqlite3
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from segundo.ledger.sqlite import statements as sql
from segundo.ledger.sqlite.turns import Turns
from segundo.record import STATE, Record, State


class Inexact(Exception):
    """A statement was to change all of its rows, and did not: undo the batch, and apply it exactly."""


class Transaction:
    """Given to every change of a batch. `now` is the same for all of them.

    `exact`: statements tell which rows they change. Else they only count them, and a count that is too small
    raises Inexact.
    """

    def __init__(
        self, connection: sqlite3.Connection, now: float, turns: Turns, *, exact: bool = False
    ) -> None:
        self.now = now
        self.exact = exact
        self.turns = turns
        self.run = connection.execute
        self.run_many = connection.executemany
        self.ending = False  # it is being committed: from here on a failure may be a success
        self.freed = False  # something became claimable that nobody in this process knows of
        self._afterwards: list[Callable[[], None]] = []
        self._if_undone: list[Callable[[], None]] = []

    def afterwards(self, step: Callable[[], None]) -> None:
        """Do `step` when the transaction has ended, committed or not."""
        self._afterwards.append(step)

    def if_undone(self, step: Callable[[], None]) -> None:
        """Do `step` when the transaction has failed, also if it may be in the file all the same."""
        self._if_undone.append(step)

    def over(self, *, committed: bool) -> None:
        for step in self._afterwards + ([] if committed else self._if_undone):
            step()

    @property
    def has_links(self) -> bool:
        """Whether any record waits for another."""
        return self.value(sql.ANY_LINK) is not None

    def ended(self, ids: Sequence[str]) -> None:
        """These records became terminal: let go on, or cancel, what waited for them (transitions c and i)."""
        while ids and self.has_links:
            released = self.run(sql.FREE, (json.dumps(ids),)).fetchall()
            successful = self.column(sql.SUCCESSFUL, json.dumps(ids))
            doomed = {
                after: before
                for before, after, on_failure in released
                if on_failure == "cancel" and before not in successful
            }
            self._queue({after for _, after, _ in released} - doomed.keys())
            ids = self._cancelled_behind(doomed)

    def cancelled(self, ids: Iterable[str], reason: str) -> list[str]:
        """Cancel those that do not run (i); returns them."""
        return self.column(sql.CANCEL, reason, self.now, json.dumps(list(ids)))

    def _cancelled_behind(self, doomed: Mapping[str, str]) -> list[str]:
        """Cancel those that wait (i) for these, by what they wait for."""
        errors = {id: in_vain(before) for id, before in doomed.items()}
        return self.column(sql.CANCEL_BEHIND, self.now, json.dumps(errors)) if errors else []

    def _queue(self, ids: set[str]) -> None:
        if ids and self.run(sql.QUEUE_FREED, (self.now, json.dumps(list(ids)))).rowcount:
            self.freed = True

    @contextmanager
    def step(self) -> Generator[None]:
        """What is done in here is done as a whole, or, if it raises, not at all."""
        self.run("SAVEPOINT step")
        try:
            yield
        except BaseException:
            self.run("ROLLBACK TO step")
            raise
        finally:
            self.run("RELEASE step")

    def value(self, statement: str, *parameters: object, **named: object) -> Any:
        """The first column of the first row, or None."""
        row = self.run(statement, named or parameters).fetchone()
        return None if row is None else row[0]

    def column(self, statement: str, *parameters: object) -> list[str]:
        """The first column of all rows."""
        return [row[0] for row in self.run(statement, parameters).fetchall()]

    def changed(self, statement: str, parameters: Any, ids: list[str], *, exact: bool = False) -> list[str]:
        """Which of `ids` a statement changes. Mostly all, and then it need not return them: a row returned is
        a step of its own, in which another thread may take the interpreter.
        """
        if self.exact or exact:
            return [row[0] for row in self.run(f"{statement}RETURNING id", parameters).fetchall()]
        if self.run(statement, parameters).rowcount != len(ids):
            raise Inexact
        return ids

    def records(self, statement: str, **named: object) -> list[Record]:
        return [to_record(row) for row in self.run(statement, named).fetchall()]


def in_vain(before: str) -> str:
    """What is to be known of a call that was cancelled by the end of the one before it."""
    message = f"it needs the success of {before}, which ended without it"
    return json.dumps({"type": "PredecessorFailed", "message": message, "before": before})


def to_record(row: Sequence[Any]) -> Record:
    values = list(row)
    values[STATE], values[CANCEL_REQUESTED] = State(row[STATE]), bool(row[CANCEL_REQUESTED])
    return Record._make(values)


CANCEL_REQUESTED = Record._fields.index("cancel_requested")
