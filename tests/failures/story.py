"""A story of calls to a ledger in which anything may fail, and the books that tell what was promised."""

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from segundo.errors import LedgerUnavailable
from segundo.ledger import Settlement
from segundo.ledger.sqlite import SQLiteLedger
from segundo.record import LIVE, Call, Link, Record, State, new_id
from tests.support import ledger_rows

T = TypeVar("T")

ME, DEAD = "me", "dead"
PATIENCE = 30  # rounds until everything must have ended


def call(task: str = "plain", **options: Any) -> Call:
    return Call(new_id(), task, "{}", **{"attempts": 3, **options})


def rows(ledger: SQLiteLedger) -> dict[str, dict[str, Any]]:
    """The records of an open ledger by id, read past it."""
    return {row["id"]: row for row in ledger_rows(ledger.path)}


class Story:
    """Tells one story to an open ledger. `refused` is called each time somebody is told of a failure."""

    def __init__(self, ledger: SQLiteLedger, refused: Callable[[], None] = lambda: None) -> None:
        self.ledger = ledger
        self.refusals = 0
        self._on_refusal = refused
        self._accepted: dict[str, Record] = {}
        self._refused: set[str] = set()
        self._released: set[str] = set()
        self._held: dict[str, int] = {}  # the claims that we were given, and have not settled
        self._ended: dict[str, State] = {}
        self._retried: dict[str, int] = {}  # how often each was settled as a failure to be tried again

    async def tell(self) -> None:
        """Every verb of a request, of an executor and of the housekeeping, once or more."""
        await self._until_done(lambda: self.ledger.join(ME))
        first = call()
        chain = [first, call(after=(Link(first.id, "run"),))]
        keyed = call("declared", key="k", crash_limit=3)
        await asyncio.gather(self.record(chain), self.record([keyed]), self.record([call("other")]))
        await self.record([call("declared", key="k")])  # a duplicate, if the first was accepted
        await self.record([call("late", held=False)])
        await self.release()
        await self.claim(limit=2)
        await self.settle_one(State.QUEUED, reason="Stumble")
        await self.settle_one(State.SUCCEEDED)
        await self.claim(limit=10)
        await self.record([call("started"), call("released"), call("started too late")])
        await self.start(limit=1)
        await self.beat()
        await self.cancel_one()
        await self.settle_one(State.FAILED, reason="Broken", error="{}")
        await self.settle_one(State.SUCCEEDED, result='"done"')
        await self._until_done(self.ledger.rescue)
        await self._until_done(self.ledger.prune)

    # The verbs, with what the books say of them

    async def record(self, calls: Sequence[Call]) -> None:
        """A request's: it is not tried again, the client has its answer."""
        try:
            for record in await self.ledger.record(calls, owner=ME):
                self._accepted[record.id] = record
        except LedgerUnavailable:
            self._refused.update(call.id for call in calls)
            self._note_refusal()

    async def release(self) -> None:
        self._released.update(self._accepted)
        await self._until_done(lambda: self.ledger.release(ME, list(self._accepted)))

    async def start(self, limit: int) -> None:
        """Of what waits for its request, the first are claimed as they are released."""
        waiting = [record for record in self._accepted.values() if record.id not in self._released]
        self._released.update(record.id for record in waiting)
        self._begin(await self._until_done(lambda: self.ledger.start(ME, waiting, limit=limit)))

    async def claim(self, limit: int) -> None:
        self._begin(await self._until_done(lambda: self.ledger.claim(ME, limit=limit)))

    def _begin(self, claimed: Sequence[Record]) -> None:
        for record in claimed:
            assert record.id not in self._refused, f"{record.id} was refused, and runs"
            assert record.id not in self._held, f"{record.id} runs twice at once"
            assert record.id not in self._ended, f"{record.id} runs after it ended"
            assert record.failures == self._retried.get(record.id, 0), f"{record.id} lost a failure"
            self._held[record.id] = record.claim

    async def settle_one(self, state: State, **outcome: Any) -> None:
        if not self._held:
            return
        id, claim = next(iter(self._held.items()))
        settlement = Settlement(id=id, claim=claim, state=state, **outcome)
        assert await self._until_done(lambda: self.ledger.settle([settlement])) == [True], settlement
        del self._held[id]
        if state is State.QUEUED:
            self._retried[id] = self._retried.get(id, 0) + 1
        else:
            self._ended[id] = state
        await self._is_stored(id, state, claim)

    async def _is_stored(self, id: str, state: State, claim: int) -> None:
        (row,) = await self._until_done(lambda: self.ledger.select(ids=[id]))
        assert (row.state, row.claim, row.owner) == (state, claim, None), f"not as settled: {row}"
        failures = self._retried.get(id, 0) + (state is State.FAILED)
        assert row.failures == failures, f"settled once, and counted as {row.failures} failures"

    async def beat(self) -> None:
        beat = await self._until_done(lambda: self.ledger.beat(ME, running=list(self._held)))
        assert not beat.lost, "an attempt was robbed of its claim"

    async def cancel_one(self) -> None:
        """Somebody cancels what was never claimed, or asks it of what runs."""
        waiting = await self._until_done(lambda: self.ledger.select(limit=100))
        for record in waiting:
            if record.id in self._accepted and record.state in LIVE:
                answer = await self._until_done(lambda: self.ledger.cancel(record.id))  # noqa: B023  (at once)
                if answer.state is State.CANCELLED:
                    self._ended[record.id] = State.CANCELLED
                return

    async def _until_done(self, verb: Callable[[], Awaitable[T]]) -> T:
        """As the executor does: what failed is tried again until the ledger has it."""
        for _ in range(PATIENCE):
            try:
                return await verb()
            except LedgerUnavailable:
                self._note_refusal()
        raise AssertionError(f"refused {PATIENCE} times")

    def _note_refusal(self) -> None:
        self.refusals += 1
        self._on_refusal()

    # What must be true at the end, with all faults gone

    async def end(self) -> None:
        """Run everything to its end, and see that the ledger holds what was promised, and nothing else."""
        await self.record([call("afterwards")])
        for _ in range(PATIENCE):
            await self.release()
            await self.beat()
            await self.claim(limit=100)
            while self._held:
                await self.settle_one(State.SUCCEEDED)
            rows = {row.id: row for row in await self.ledger.select(limit=1000)}
            if not any(row.state in LIVE for row in rows.values()):
                break
        else:
            raise AssertionError(f"still live: {[row for row in rows.values() if row.state in LIVE]}")
        assert rows.keys() == self._accepted.keys(), "the ledger holds just what was accepted"
        self._check(rows)

    def _check(self, rows: dict[str, Record]) -> None:
        assert any(record.task == "afterwards" for record in self._accepted.values()), "it goes on afterwards"
        for id, row in rows.items():
            expected = self._ended.get(id)
            assert row.state == (expected or row.state), f"{id} ended as {expected}, and is {row.state}"
            assert expected or row.reason in ("Duplicate", "Cancelled", "PredecessorFailed"), row
            assert row.reason != "Duplicate" or row.same_as in rows, f"{id} is the same as nothing"


def check_file(path: Path, wanted: Sequence[str] = ()) -> dict[str, sqlite3.Row]:
    """A ledger's file by itself: whole, every row legal, the `wanted` ids there. Returns the rows by id."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        assert [row[0] for row in connection.execute("PRAGMA integrity_check")] == ["ok"]
        rows = {row["id"]: row for row in connection.execute("SELECT * FROM records")}
        links = connection.execute("SELECT before, after FROM links").fetchall()
    missing = [id for id in wanted if id not in rows]
    assert not missing, f"acknowledged, and not in the file: {missing}"
    waiting = {after for _, after in links}
    for id, row in rows.items():
        check_row(row, waits=id in waiting)
    for before, after in links:
        assert before in rows, f"{after} waits for {before}, which is not there"
        assert rows[before]["state"] in LIVE, f"{after} waits for {before}, which has ended"
    return rows


def check_row(row: sqlite3.Row, *, waits: bool) -> None:
    """The marks of each state, by the table of record.py."""
    story = json.dumps(dict(row))
    state = State(row["state"])
    assert state.terminal == (row["finished_at"] is not None), story
    match state:
        case State.WAITING:
            assert row["owner"] is not None or waits, f"nobody will release it: {story}"
            assert row["claim"] == 0, story
        case State.QUEUED:
            assert row["owner"] is None, story
            assert not waits, story
        case State.RUNNING:
            assert row["owner"] is not None, story
            assert row["claim"] >= 1, story
            assert row["started_at"] is not None, story
        case State.SUCCEEDED:
            assert row["owner"] is None, story
            assert row["claim"] >= 1, story
        case State.FAILED | State.CANCELLED:
            assert row["owner"] is None, story
            assert row["reason"], story
    assert row["failures"] + row["crashes"] <= row["claim"], story
