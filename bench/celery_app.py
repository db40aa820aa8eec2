"""The app and workers of the benchmarks with a broker: one task, through Segundo or by `.delay()`.

`BENCH_SIDE` says which; broker, Celery's settings and pools are the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import BackgroundTasks, FastAPI, Response

from bench.counting import ADDRESS, Counter
from segundo import Segundo, task
from segundo.executors.celery.apps import make_app

OURS = os.environ.get("BENCH_SIDE") == "segundo"
TICK = 0.001  # seconds between two looks at the event loop's lag


counter = Counter(Path(os.environ.get("BENCH_COUNTS", ".")))
lags: list[tuple[float, float]] = []  # when (CLOCK_MONOTONIC), and how late, in seconds


async def watch_the_loop() -> None:
    """Note again and again how much later than asked the loop comes back."""
    while True:
        asked = time.monotonic() + TICK
        await asyncio.sleep(TICK)
        now = time.monotonic()
        lags.append((now, now - asked))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    watcher = asyncio.create_task(watch_the_loop()) if os.environ.get("BENCH_WATCH_LOOP") else None
    yield
    if watcher:
        watcher.cancel()


app = FastAPI(lifespan=lifespan)


def noop(email: str) -> None:
    counter.add()


if OURS:
    celery = Segundo(app).celery
    ours = task(noop)
else:
    celery = make_app(os.environ["SEGUNDO_BROKER"])  # Segundo's settings of workers, for both
    if celery.conf.broker_url.startswith("amqp"):
        celery.conf.broker_transport_options = {"confirm_publish": True}
    theirs = celery.task(noop, name="noop")


if OURS:

    @app.get("/async")
    async def async_call(tasks: BackgroundTasks) -> dict[str, bool]:
        tasks.add_task(ours, ADDRESS)
        return {"ok": True}

    @app.get("/def")
    def def_call(tasks: BackgroundTasks) -> dict[str, bool]:
        tasks.add_task(ours, ADDRESS)
        return {"ok": True}

else:

    @app.get("/async")
    async def async_call() -> dict[str, bool]:
        theirs.delay(ADDRESS)
        return {"ok": True}

    @app.get("/def")
    def def_call() -> dict[str, bool]:
        theirs.delay(ADDRESS)
        return {"ok": True}


@app.get("/executed")
async def ready() -> dict[str, int]:
    """What the harness asks of every app: here it only says that it serves."""
    return {"executed": 0}


@app.get("/lags")
async def take_lags() -> Response:
    """The lags since the last time that this was asked."""
    taken = lags[:]
    lags.clear()
    return Response(json.dumps(taken), media_type="application/json")
