"""What the tests of every ledger share: a clock that only tests move, and records put where a test begins.

A test asks for the fixture `stage`, which comes once for each kind of ledger (`conftest.py`). Another kind
joins the whole suite by a `Store` of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg
from psycopg.rows import dict_row

from segundo.ledger import Ledger, Settlement
from segundo.ledger.postgres import PostgresLedger
from segundo.ledger.postgres.connecting import Place
from segundo.ledger.sqlite import SQLiteLedger
from segundo.ledger.sqlite.file import Durability
from segundo.record import Call, Link, Record, State, new_id
from tests.support import ledger_rows, wait_until

START = 1_000_000.0  # where every clock begins
TASK = "tests.tasks:work"


class Clock:
    """The time of a ledger, in unix seconds: it stands still until a test moves it."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> float:
        self.now += seconds
        return self.now


class Store(Protocol):
    """A place where ledgers of one kind meet. Sent to another process, it makes a ledger there."""

    def ledger(self, clock: Callable[[], float]) -> Ledger: ...

    def records(self) -> dict[str, Record]:
        """Every record by id, read past the ledger."""
        ...

    async def let_die(self, ledger: Ledger) -> None:
        """Let the ledger's owners die as by `kill -9`: nothing is said, everything is left."""
        ...

    def bury(self, *owners: str) -> None:
        """These have died, and long enough ago for everybody to know it."""


@dataclass(frozen=True)
class SQLiteStore:
    path: Path
    durability: Durability = "full"

    def ledger(self, clock: Callable[[], float]) -> SQLiteLedger:
        return SQLiteLedger(self.path, clock=clock, durability=self.durability)

    def records(self) -> dict[str, Record]:
        return {row["id"]: _record(row) for row in ledger_rows(self.path)}

    async def let_die(self, ledger: Ledger) -> None:
        assert isinstance(ledger, SQLiteLedger)
        await ledger.close(dead=True)

    def bury(self, *owners: str) -> None:
        """The kernel has told everybody."""


@dataclass(frozen=True)
class PostgresStore:
    """`url`: of its schema. Nobody here waits until a lease runs out: who is dead, the tests say."""

    url: str

    def ledger(self, clock: Callable[[], float]) -> PostgresLedger:
        return PostgresLedger(self.url, clock=clock, patience=0)

    def records(self) -> dict[str, Record]:
        with self._connect() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            return {row["id"]: _record(row) for row in cursor.execute("SELECT * FROM records").fetchall()}

    async def let_die(self, ledger: Ledger) -> None:
        assert isinstance(ledger, PostgresLedger)
        owners = ledger.owners
        await ledger.close(dead=True)
        self.bury(*owners)

    def bury(self, *owners: str) -> None:
        with self._connect() as connection:
            connection.execute(
                "UPDATE workers SET lease_until = '-infinity' WHERE id = ANY (%s)", (list(owners),)
            )

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return Place.at(self.url).connect()


def _record(row: dict[str, Any]) -> Record:
    return Record(**row)._replace(state=State(row["state"]), cancel_requested=bool(row["cancel_requested"]))


def call(**fields: Any) -> Call:
    """A call outside a request, unless `fields` say otherwise."""
    return Call(**{"id": new_id(), "task": TASK, "arguments": '{"n": 1}', "held": False, **fields})


def after(*ids: str, on_failure: str = "cancel") -> tuple[Link, ...]:
    return tuple(Link(id, on_failure) for id in ids)


def settlement(record: Record, state: State = State.SUCCEEDED, **fields: Any) -> Settlement:
    return Settlement(**{"id": record.id, "claim": record.claim, "state": state, **fields})


class Stage:
    """An open ledger with the owner "me", and short ways to put records where a test begins."""

    me = "me"

    def __init__(self, store: Store) -> None:
        self.store = store
        self.clock = Clock()
        self.ledger = store.ledger(self.clock)
        self.beside: Record | None = None  # a second record that a verb needs
        self.others: list[Ledger] = []

    @classmethod
    @asynccontextmanager
    async def on(cls, store: Store) -> AsyncIterator["Stage"]:
        stage = cls(store)
        await stage.ledger.open()
        await stage.ledger.join(stage.me)
        try:
            yield stage
        finally:
            for ledger in (stage.ledger, *stage.others):
                await store.let_die(ledger)

    async def another(self, *owners: str) -> Ledger:
        """A second ledger on the same store, with owners of its own that live."""
        ledger = self.store.ledger(self.clock)
        await ledger.open()
        self.others.append(ledger)
        for owner in owners:
            await ledger.join(owner)
        return ledger

    async def let_die(self, ledger: Ledger) -> None:
        await self.store.let_die(ledger)

    def records(self) -> dict[str, Record]:
        return self.store.records()

    def now_is(self, record: Record) -> Record:
        """The record as it is stored now."""
        return self.records()[record.id]

    # Records to begin with

    async def queued(self, **fields: Any) -> Record:
        (record,) = await self.ledger.record([call(**fields)], owner=self.me)
        return record

    async def held(self, **fields: Any) -> Record:
        """Waiting for the end of a request of "me"."""
        return await self.queued(held=True, **fields)

    async def running(self, **fields: Any) -> Record:
        return await self.claim(await self.queued(**fields))

    async def ended(self, state: State = State.SUCCEEDED, **fields: Any) -> Record:
        record = await self.running(**fields)
        assert await self.ledger.settle([settlement(record, state)]) == [True]
        return self.now_is(record)

    async def claim(self, record: Record, owner: str | None = None) -> Record:
        """This record and no other, claimed."""
        (claimed,) = await self.ledger.claim(owner or self.me, ids=[record.id], limit=1)
        return claimed

    async def left_by_the_dead(self, *calls: Call, run: bool = True, stopping: bool = False) -> list[Record]:
        """Records of an owner that has died since: running, or (`run=False`) waiting for its request."""
        owner = f"dead-{new_id()}"
        ghost = await self.another(owner)
        recorded = await ghost.record([one._replace(held=not run) for one in calls], owner=owner)
        if run:
            ids = [record.id for record in recorded]
            recorded = await ghost.claim(owner, ids=ids, limit=len(ids))
        if stopping:
            await ghost.leave(owner)
        await self.let_die(ghost)
        return list(recorded)

    async def crashed(self, times: int = 1, **fields: Any) -> Record:
        """Queued again after it took so many processes down."""
        (record,) = await self.left_by_the_dead(call(**{"crash_limit": 3, **fields}))
        await self.ledger.rescue()
        for _ in range(times - 1):
            ghost = await self.another(owner := f"dead-{new_id()}")
            await ghost.claim(owner, ids=[record.id], limit=1)
            await self.let_die(ghost)
            await self.ledger.rescue()
        return self.now_is(record)

    async def forget(self, *records: Record, owner: str | None = None, held: bool = True) -> None:
        """What becomes of the records of a request that was given up just after they were recorded."""
        mark = call(held=held)
        calls = [*(call(id=record.id, held=held) for record in records), mark]
        refused = asyncio.ensure_future(self.ledger.record(calls, owner=owner or self.me))
        for _ in range(2):
            await asyncio.sleep(
                0
            )  # it is posted at the end of a turn, and while we do not wait it learns of nothing
        wait_until(lambda: mark.id in self.records(), every=0.001)
        refused.cancel()
        await asyncio.gather(refused, return_exceptions=True)
        await self.settled()

    async def settled(self) -> None:
        """All that was posted before is done."""
        await self.ledger.release(self.me, [])


def states(records: Sequence[Record]) -> list[State]:
    return [record.state for record in records]
