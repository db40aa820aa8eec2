"""pytest-asyncio, in each of its modes."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from shop import app, charge, ran, segundo

from segundo.testing import LedgerClock, Recorder


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    ran.clear()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        yield client


@pytest.mark.asyncio
@pytest.mark.parametrize("time", ["first", "second"])
async def test_a_call_runs_before_the_client_goes_on(
    client: httpx.AsyncClient, tasks: Recorder, ledger_clock: LedgerClock, time: str
) -> None:
    await client.post("/calls/charge")
    await segundo.submit(charge.options(delay=60), 6)
    assert ran == [("charge", 5, "the shop's")]
    ledger_clock.move(minutes=1)
    await tasks.drain()
    assert len(ran) == 2


@pytest.mark.asyncio(loop_scope="session")
async def test_a_loop_that_tests_share(tasks: Recorder) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        await client.post("/calls/charge")
    assert len(tasks.calls) == len(await segundo.ledger.select()) == 1


@pytest.mark.asyncio(loop_scope="session")
async def test_and_another_test_on_it(tasks: Recorder) -> None:
    await test_a_loop_that_tests_share(tasks)


def test_a_def_drains_what_an_async_fixture_began(client: httpx.AsyncClient, tasks: Recorder) -> None:
    tasks.drain()
