"""Whoever calls the app, it is in test mode, and each test begins with nothing."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from shop import app, charge, log, ran, segundo

from segundo.testing import LedgerClock, Recorder

CHARGED = ("charge", 5, "the shop's")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def nothing_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    ran.clear()
    yield
    assert not (tmp_path / "segundo.db").exists()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        yield client


@pytest.mark.anyio
@pytest.mark.parametrize("time", ["first", "second"])
async def test_a_client_without_a_lifespan_begins_with_an_empty_ledger(
    client: httpx.AsyncClient, tasks: Recorder, time: str
) -> None:
    assert tasks.calls == ()
    await client.post("/calls/charge")
    assert ran == [CHARGED]
    assert len(await segundo.ledger.select()) == len(tasks.calls) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("time", ["first", "second"])
async def test_several_requests_at_once_may_be_the_first(
    client: httpx.AsyncClient, tasks: Recorder, time: str
) -> None:
    await asyncio.gather(*(client.post("/calls/charge") for _ in range(5)))
    assert ran == [CHARGED] * 5
    assert len(tasks.called(charge)) == 5


@asynccontextmanager
async def started(app: FastAPI) -> AsyncIterator[None]:
    """The app's lifespan, as servers and asgi-lifespan run it."""
    to_app, from_app = asyncio.Queue[object](), asyncio.Queue[object]()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    lifespan = asyncio.create_task(app(scope, to_app.get, from_app.put))  # type: ignore[arg-type]  # messages
    await to_app.put({"type": "lifespan.startup"})
    assert await from_app.get() == {"type": "lifespan.startup.complete"}
    yield
    await to_app.put({"type": "lifespan.shutdown"})
    await lifespan


@pytest.mark.anyio
async def test_a_client_with_a_lifespan_as_servers_run_it(
    client: httpx.AsyncClient, tasks: Recorder, ledger_clock: LedgerClock
) -> None:
    async with started(app):
        await client.post("/calls/charge")
        await segundo.submit(log, "an hour later")
        await segundo.submit(charge.options(delay=3600), 7)
        ledger_clock.move(hours=1)
        await tasks.drain()
    assert ran == [CHARGED, ("log", "an hour later"), ("charge", 7, "the shop's")]


@pytest.mark.parametrize("time", ["first", "second"])
def test_a_test_client_without_with(tasks: Recorder, ledger_clock: LedgerClock, time: str) -> None:
    client = TestClient(app)
    tasks.hold()
    client.post("/calls/charge")
    client.post("/calls/log")
    assert ran == []
    tasks.drain()
    assert sorted(map(str, ran)) == sorted(map(str, [CHARGED, ("log", "hello")]))


@pytest.fixture
def server() -> Iterator[str]:
    """A real server in a thread of this process."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_a_server_in_a_thread(server: str, tasks: Recorder, ledger_clock: LedgerClock) -> None:
    tasks.hold()
    httpx.post(f"{server}/calls/charge", trust_env=False).raise_for_status()
    assert tasks.called(charge, 5)
    assert ran == []
    tasks.drain()
    assert ran == [CHARGED]


@pytest.mark.anyio
async def test_a_server_in_a_thread_is_drained_by_an_async_test(server: str, tasks: Recorder) -> None:
    tasks.hold()
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.post(f"{server}/calls/charge")
    await tasks.drain()
    assert ran == [CHARGED]


def test_another_process_is_in_no_test_mode(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    code = "import asyncio, shop\nasyncio.run(shop.segundo.submit(shop.log, 'there'))"
    environment = {"PYTHONPATH": str(pytestconfig.rootpath), "SEGUNDO_LEDGER": str(tmp_path / "theirs.db")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert (tmp_path / "theirs.db").exists()
