"""The examples of docs/kept.md and docs/order.md, without `Segundo(app)` and with it: the tables are so."""

import asyncio
import importlib
import re
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import ModuleType

import httpx
import pytest
import websockets

from tests.support import ROOT, Server, wait_until, wait_until_async
from tests.transcript import blocks
from tests.web.apps import Watched, served
from tests.web.test_servers import http_scope, one_answer, receives_a_disconnect

LOSSES, ORDER = ROOT / "docs" / "kept.md", ROOT / "docs" / "order.md"
NAME = re.compile(r"# (\w+)\.py\n")
PAGES: dict[str, Path] = {}
EXAMPLES: dict[str, str] = {}
for page in (LOSSES, ORDER):
    for _, block in blocks(page):
        if (found := NAME.match(block)) is not None:
            PAGES[found[1]], EXAMPLES[found[1]] = page, block
BEGINNING = EXAMPLES.pop("beginning")
LINE = re.compile(r"^Segundo\(app\).*\n", re.MULTILINE)


def table(name: str) -> dict[str, list[str]]:
    """What the first table behind an example says was done, by whom."""
    _, _, behind = PAGES[name].read_text().partition(f"```python\n# {name}.py\n")
    rows = re.findall(r"^\| (FastAPI|Segundo) \| (.*) \|$", behind, re.MULTILINE)[:2]
    return {who: re.findall(r"`([^`]*)`", said) for who, said in rows}


def code(name: str, who: str) -> str:
    """The example as a file, for FastAPI alone without the one line."""
    whole = f"{BEGINNING}\n\n{EXAMPLES[name]}"
    return whole if who == "Segundo" else LINE.sub("", whole)


def done() -> list[str]:
    path = Path("done.txt")
    return path.read_text().splitlines() if path.exists() else []


def write_done(what: str) -> None:
    with Path("done.txt").open("a") as file:
        file.write(f"{what}\n")


def note_bytes(moment: str) -> None:
    if moment != "over":
        write_done(moment)


# What the client of each example does; most send one POST


async def posts(url: str, example: ModuleType) -> None:
    async with client(url) as it:
        await it.post("/")


def client(url: str, timeout: float = 10) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, trust_env=False, timeout=timeout)


async def orders_and_asks_on_one_connection(url: str, example: ModuleType) -> None:
    await asyncio.to_thread(on_one_connection, int(url.rpartition(":")[2]))


def on_one_connection(port: int) -> None:
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        connection.sendall(b"POST /order HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n")
        if one_answer(connection):
            write_done("order answered")
        with suppress(OSError, AssertionError):  # closed
            connection.sendall(b"GET /report HTTP/1.1\r\nHost: app\r\n\r\n")
            if one_answer(connection).endswith("42"):
                write_done("report answered")


async def says_hello(url: str, example: ModuleType) -> None:
    async with websockets.connect(url.replace("http", "ws"), proxy=None) as it:
        await it.send("hello")


async def has_gone(url: str, example: ModuleType) -> None:
    async def gone(message: object) -> None:
        raise OSError("the client has gone")

    with pytest.raises(OSError, match="has gone"):
        await example.app({**http_scope(), "method": "POST"}, receives_a_disconnect(), gone)


async def asks_after_forty_orders(url: str, example: ModuleType) -> None:
    async with client(url, timeout=1) as it:
        for _ in range(40):
            assert (await it.post("/")).status_code == 200
        try:
            assert (await it.get("/health")).json() == "fine"
            write_done("healthy")
        except httpx.ReadTimeout:
            write_done("gave up")
        finally:
            example.stop.set()


async def orders_six_times(url: str, example: ModuleType) -> None:
    async with client(url) as it:
        for _ in range(6):
            write_done(str((await it.post("/")).status_code))
    example.stop.set()


Act = Callable[[str, ModuleType], Awaitable[None]]
ACTS: dict[str, Act] = {
    "connection": orders_and_asks_on_one_connection,
    "socket": says_hello,
    "leaves": has_gone,
    "threads": asks_after_forty_orders,
    "limit": orders_six_times,
}
OF_A_PROCESS = "process"


@pytest.fixture
def importable(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(own_directory)
    before = set(sys.modules)
    yield own_directory
    for name in [name for name in sys.modules if name not in before and name.startswith("kept_")]:
        del sys.modules[name]


@pytest.mark.parametrize("who", ["FastAPI", "Segundo"])
@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != OF_A_PROCESS])
async def test_an_example_does_what_its_table_says(name: str, who: str, importable: Path) -> None:
    module = f"kept_{name}_{who.lower()}"
    (importable / f"{module}.py").write_text(code(name, who))
    example = importlib.import_module(module)
    said = table(name)[who]
    options = {"limit_concurrency": 5} if name == "limit" else {}
    app = Watched(example.app, note_bytes) if PAGES[name] == ORDER else example.app
    async with served(app, **options) as url:
        await ACTS.get(name, posts)(url, example)
        if who == "Segundo":
            await wait_until_async(lambda: len(done()) >= len(said))
    # Here uvicorn has waited for what FastAPI runs, so nothing more can come of it.
    assert done() == said


@pytest.mark.parametrize("who", ["FastAPI", "Segundo"])
def test_what_a_kill_leaves_undone_is_what_the_table_says(who: str, own_directory: Path) -> None:
    said = table(OF_A_PROCESS)[who]
    (own_directory / "main.py").write_text(code(OF_A_PROCESS, who))
    with Server("main:app", cwd=own_directory) as server:
        assert httpx.post(server.url, trust_env=False).status_code == 200
        wait_until(done)
        server.kill()
        server.start()
        assert httpx.get(f"{server.url}/docs", trust_env=False).status_code == 200
        wait_until(lambda: len(done()) >= len(said))
    assert done() == said


def test_every_example_has_its_table_and_the_losses_come_before_what_stays_as_it_is() -> None:
    assert len(EXAMPLES) > 15
    assert set(ACTS) | {OF_A_PROCESS} <= set(EXAMPLES)
    assert [name for name in EXAMPLES if set(table(name)) != {"FastAPI", "Segundo"}] == []
    of_losses = [name for name in EXAMPLES if PAGES[name] == LOSSES]
    kept = [name for name in of_losses if table(name)["FastAPI"] != table(name)["Segundo"]]
    assert kept == of_losses[: len(kept)]
    assert len(kept) == 12
