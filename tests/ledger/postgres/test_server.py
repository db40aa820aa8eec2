"""The server is stopped, started, and loses sessions: nothing is lost, and nothing has to be restarted."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from scripts.services import Postgres
from segundo.errors import LedgerUnavailable
from segundo.ledger.postgres import PostgresLedger
from segundo.ledger.postgres.connecting import Place
from segundo.record import Record, State
from tests.ledger.suite import PostgresStore, call, settlement
from tests.postgres import Schemas, a_server
from tests.support import wait_until_async

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """One whose commits are on its disk, and which may be stopped."""
    with a_server() as server:
        yield server


@pytest.fixture
def own_url(server: Postgres, request: pytest.FixtureRequest) -> str:
    return f"{server.url()}?schema=test_{abs(hash(request.node.name))}"


async def opened(url: str, **how: Any) -> PostgresLedger:
    ledger = PostgresLedger(url, **{"patience": 0, **how})
    await ledger.open()
    await ledger.join("me")
    return ledger


async def test_a_ledger_outlives_a_restart_of_its_server(server: Postgres, own_url: str) -> None:
    ledger = await opened(own_url, record_timeout=0.3)
    (before,) = await ledger.record([call(crash_limit=1)], owner="me")
    (running,) = await ledger.claim("me", limit=1)
    server.stop()
    with pytest.raises(LedgerUnavailable):
        await ledger.record([call()], owner="me")
    with pytest.raises(LedgerUnavailable):
        await ledger.settle([settlement(running)])
    with pytest.raises(LedgerUnavailable):
        await ledger.select(ids=[before.id])
    server.start()
    assert await settled_at_last(ledger, running)
    (after,) = await ledger.record([call()], owner="me")
    now = {record.id: record.state for record in await ledger.select()}
    assert now == {before.id: State.SUCCEEDED, after.id: State.QUEUED}  # the refused one is not there
    await ledger.close(dead=True)


async def settled_at_last(ledger: PostgresLedger, record: Record) -> bool:
    """As the executor does: again, until the ledger takes it."""

    async def settled() -> bool:
        try:
            return (await ledger.settle([settlement(record)])) == [True]
        except LedgerUnavailable:
            return False

    return await wait_until_async(settled, timeout=20, every=0.1)


async def test_a_request_waits_for_a_server_that_comes_back_in_time(server: Postgres, own_url: str) -> None:
    ledger = await opened(own_url, record_timeout=30)
    server.stop()
    waiting = asyncio.ensure_future(ledger.record([call()], owner="me"))
    await asyncio.to_thread(server.start)
    (record,) = await waiting
    assert (await ledger.select())[0].id == record.id
    await ledger.close(dead=True)


async def test_what_others_do_after_a_restart_is_heard(server: Postgres, own_url: str) -> None:
    ledger, other = await opened(own_url), await opened(own_url)
    server.stop()
    server.start()
    (record,) = await other.record([call()], owner="other")
    seen = [seen.state async for seen in first(ledger, record)]
    assert seen == [State.QUEUED]
    watching = asyncio.ensure_future(last(ledger, record))
    (claimed,) = await other.claim("me", limit=1)
    assert await other.settle([settlement(claimed)]) == [True]
    assert await asyncio.wait_for(watching, 20) == State.SUCCEEDED
    for each in (ledger, other):
        await each.close(dead=True)


async def first(ledger: PostgresLedger, record: Record) -> Any:
    async for seen in ledger.watch([record.id]):
        yield seen
        return


async def last(ledger: PostgresLedger, record: Record) -> State:
    states = [seen.state async for seen in ledger.watch([record.id])]
    return states[-1]


# Sessions that break while they commit


class Breaking:
    """A session that breaks at its next COMMIT, when `breaks` says how: before it, or just after."""

    breaks: str | None = None
    left: "list[psycopg.Connection[Any]]"

    def __init__(self, place: Place) -> None:
        self._place = place
        self.left = []

    def connect(self) -> Any:
        return Session(self._place.connect(), self)


class Session:
    """Of a `Breaking`: everything else is the real session's."""

    def __init__(self, real: "psycopg.Connection[Any]", breaking: Breaking) -> None:
        self._real = real
        self._breaking = breaking

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def execute(self, query: Any, *parameters: Any) -> Any:
        how = self._breaking.breaks
        if query == "COMMIT" and how is not None:
            self._breaking.breaks = None
            if how == "after":
                self._real.execute(query)
                self._real.close()
            else:  # the server has not noticed yet, and is still at it
                self._breaking.left.append(self._real)
                self._real = self._breaking.connect()._real
                self._real.close()
            raise psycopg.OperationalError("the link broke")
        return self._real.execute(query, *parameters)


@pytest.fixture
def breaking(url: str) -> Breaking:
    return Breaking(Place.at(url))


async def test_a_commit_without_an_answer_is_made_once(url: str, breaking: Breaking) -> None:
    ledger = await opened(url, connect=breaking.connect)
    breaking.breaks = "after"
    (record,) = await ledger.record([call()], owner="me")
    assert [found.id for found in await ledger.select()] == [record.id]
    (running,) = await ledger.claim("me", limit=1)
    breaking.breaks = "after"
    assert await ledger.settle([settlement(running)]) == [True]  # it was stored the first time
    await ledger.close(dead=True)


async def test_a_commit_that_lost_its_session_has_ended_before_the_next_begins(
    url: str, breaking: Breaking
) -> None:
    ledger = await opened(url, connect=breaking.connect, record_timeout=0.3)
    breaking.breaks = "before"
    with pytest.raises(LedgerUnavailable):
        await ledger.record([call(held=True)], owner="me")
    forgetting = asyncio.ensure_future(recorded_at_last(ledger))
    (lost,) = breaking.left
    lost.execute("COMMIT")  # the server gets to it only now
    lost.close()
    record = await forgetting
    assert [found.id for found in await ledger.select()] == [record.id]  # the refused one was taken back
    await ledger.close(dead=True)


async def recorded_at_last(ledger: PostgresLedger) -> Record:
    while True:
        try:
            (record,) = await ledger.record([call()], owner="me")
        except LedgerUnavailable:
            continue
        return record


# Who is taken for dead


async def test_who_was_taken_for_dead_and_lives_can_be_taken_for_dead_again(
    schemas: Schemas, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = PostgresStore(url)
    ledger, other = await opened(url), await opened(url)
    await ledger.join("frozen")
    (lost,) = await ledger.record([call(held=True, crash_limit=1)], owner="frozen")
    store.bury("frozen")
    assert [record.id for record in await other.rescue()] == [lost.id]
    with caplog.at_level(logging.WARNING, "segundo.ledger"):
        (record,) = await ledger.record([call(held=True)], owner="frozen")
    assert "taken for dead" in caplog.text
    assert schemas.rows(url, "SELECT count(*) FROM workers WHERE id = 'frozen'") == [(1,)]
    assert await other.rescue() == []
    store.bury("frozen")
    assert [rescued.id for rescued in await other.rescue()] == [record.id]
    for each in (ledger, other):
        await each.close(dead=True)
