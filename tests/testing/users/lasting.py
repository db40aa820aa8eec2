"""An app whose lifespan is longer than a test."""

from collections.abc import Iterator

import httpx
import pytest
from fastapi.testclient import TestClient
from shop import app, ran, segundo

from segundo.testing import LedgerClock, Recorder


@pytest.fixture(scope="module")
def lasting() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture(autouse=True)
def nothing_ran(lasting: TestClient) -> None:
    ran.clear()


@pytest.mark.parametrize("time", ["first", "second"])
def test_each_test_sees_its_own_calls_and_has_a_clock_of_its_own(
    lasting: TestClient, tasks: Recorder, ledger_clock: LedgerClock, time: str
) -> None:
    lasting.post("/calls/log")
    lasting.post("/calls/charge")
    assert len(tasks.calls) == 2
    assert sorted(map(str, ran)) == ["('charge', 5, \"the shop's\")", "('log', 'hello')"]
    ledger_clock.move(days=1)
    tasks.drain()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_its_ledger_is_that_of_every_client(tasks: Recorder) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        await client.post("/calls/charge")
    assert len(ran) == len(tasks.calls) == 1
    assert len(await segundo.ledger.select(ids=[str(tasks.calls[0].id)])) == 1
