"""What the executor hears from the ledger about its attempts concerns those attempts, and no later ones."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI

from segundo import Segundo
from segundo.executors import embedded
from tests.support import wait_until_async
from tests.web.apps import LEDGER, ended, running

started: list[str] = []


async def start(name: str) -> None:
    started.append(name)


async def test_a_beat_while_a_call_is_being_released_does_not_make_it_run_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The release waits for a stranger's lock, and a beat behind it. The ledger answers both together: at the
    # moment of the beat the call was known here, and not yet claimed.
    monkeypatch.setattr(embedded, "BEAT", 0.05)
    started.clear()
    app = FastAPI()
    segundo = Segundo(app)

    async def locks_at_its_exit() -> AsyncIterator[None]:
        yield
        stranger.execute("BEGIN IMMEDIATE")

    @app.post("/")
    async def add(tasks: BackgroundTasks) -> None:
        tasks.add_task(start, "first")

    @app.post("/locked", dependencies=[Depends(locks_at_its_exit)])
    async def add_and_lock(tasks: BackgroundTasks) -> None:
        tasks.add_task(start, "second")

    async with running(app) as client:
        with closing(sqlite3.connect(LEDGER, isolation_level=None)) as stranger:
            await client.post("/")
            await ended(1)
            await client.post("/locked")
            await wait_until_async(lambda: a_beat_is_being_written(segundo))
            stranger.execute("ROLLBACK")
        await ended(2)
    assert started == ["first", "second"]


def a_beat_is_being_written(segundo: Segundo) -> bool:
    """Whether a beat is under way, and in the writer's hands: nothing else claims here."""
    runtime = segundo._life.runtime
    assert runtime is not None
    return runtime._embedded._claiming.locked() and runtime.ledger._writer._posted.empty()
