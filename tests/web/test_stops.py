"""A stop: from its first moment on nothing more is claimed."""

import asyncio
import sqlite3
from contextlib import AsyncExitStack, closing

from fastapi import FastAPI

from segundo import Segundo, task
from tests.support import wait_until_async
from tests.web.apps import LEDGER, lifespan, records
from tests.web.tasks import events, note

gate = asyncio.Event()


@task
async def waits() -> None:
    note("begins")
    await gate.wait()


async def test_what_ends_while_the_ledger_is_told_of_a_stop_makes_room_for_no_other() -> None:
    app = FastAPI()
    segundo = Segundo(app, concurrency=1)
    async with AsyncExitStack() as life:
        await life.enter_async_context(lifespan(app))
        for _ in range(2):
            await segundo.submit(waits)
        await wait_until_async(lambda: events() == ["begins"])
        with closing(sqlite3.connect(LEDGER, isolation_level=None)) as stranger:
            stranger.execute("BEGIN IMMEDIATE")  # so that nothing of the stop can be written yet
            stop = asyncio.ensure_future(life.pop_all().aclose())
            await turns(50)
            gate.set()
            await turns(50)
        await stop
    assert sorted(record["state"] for record in records()) == ["queued", "succeeded"]


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)
