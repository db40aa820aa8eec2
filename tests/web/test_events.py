"""The state of a record as a stream of events, as an EventSource of a browser reads it."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI

from segundo import Segundo, current, status, task
from tests.support import Server, ledger_rows, wait_until_async
from tests.web.apps import served_client

gate = threading.Event()


@pytest.fixture(autouse=True)
def closed_gate() -> None:
    gate.clear()


@task
async def says_how_far_it_is() -> str:
    current().progress(1, 2, "half")
    await asyncio.to_thread(gate.wait, 20)
    return "done"


def app_with(**settings: Any) -> tuple[FastAPI, Segundo]:
    app = FastAPI()
    return app, Segundo(app, **{"status": "/tasks", **settings})


async def events(answer: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    name = ""
    async for line in answer.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


@pytest.mark.parametrize("own", [True, False])
async def test_each_change_is_an_event_until_the_record_has_ended(own: bool) -> None:
    router = APIRouter(prefix="/tasks", dependencies=[Depends(lambda: None)] if own else [])
    app, seg = app_with(status=router)
    seen: list[tuple[str, dict[str, Any]]] = []
    async with served_client(app) as client:
        handle = await seg.submit(says_how_far_it_is)
        async with client.stream("GET", f"/tasks/{handle.id}/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            async for name, record in events(answer):
                seen.append((name, record))
                if record["progress"]:
                    gate.set()
    assert [name for name, _ in seen][-1] == "succeeded"
    assert {name for name, _ in seen} <= {"queued", "running", "succeeded"}
    last = seen[-1][1]
    assert last["progress"] == {"done": 1, "total": 2, **({"message": "half"} if own else {})}
    assert ("result" in last) is own


async def test_an_unknown_id_has_no_events() -> None:
    app, _ = app_with()
    async with served_client(app) as client:
        assert (await client.get(f"/tasks/{'0' * 36}/events")).status_code == 404


async def test_who_may_not_read_hears_nothing() -> None:
    def nobody() -> None:
        raise status.HTTPException(403)

    app, seg = app_with(status=APIRouter(prefix="/tasks", dependencies=[Depends(nobody)]))
    async with served_client(app) as client:
        handle = await seg.submit(says_how_far_it_is.options(delay=3600))
        assert (await client.get(f"/tasks/{handle.id}/events")).status_code == 403


async def test_a_client_that_leaves_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "PAUSE", 0.05)
    app, seg = app_with()
    async with served_client(app) as client:
        handle = await seg.submit(says_how_far_it_is.options(delay=3600))
        for _ in range(3):
            async with client.stream("GET", f"/tasks/{handle.id}/events") as answer:
                lines = answer.aiter_lines()
                while await anext(lines) != ": still there":
                    pass
        await wait_until_async(lambda: seg.ledger._watch._watchers == set())  # type: ignore[attr-defined]  # ours
        await wait_until_async(lambda: not [one for one in asyncio.all_tasks() if "_next" in repr(one)])


APP = """
import asyncio
from fastapi import FastAPI
from segundo import Segundo, task

app = FastAPI()
seg = Segundo(app, status="/tasks", grace=1)

@task
async def sleeps() -> None:
    await asyncio.sleep(3600)

@app.post("/")
async def begin() -> str:
    return (await seg.submit(sleeps)).id
"""


def test_a_stream_ends_when_its_server_stops(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    soon = ("--timeout-graceful-shutdown", "1")  # without it, the server waits for its clients
    with (
        Server("main:app", cwd=tmp_path, options=soon) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        id = client.post("/").json()
        with client.stream("GET", f"/tasks/{id}/events") as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("event: ")
            server.terminate()
            with suppress(httpx.RemoteProtocolError):  # uvicorn cuts it off
                list(lines)
        server.wait()
        assert "Application shutdown complete" in server.output()
    assert [row["state"] for row in ledger_rows(tmp_path / "segundo.db")] == ["queued"]  # in good order
