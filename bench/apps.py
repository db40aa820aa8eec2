"""The app under load. `BENCH_SIDE=segundo` adds the one line; nothing else differs between the contenders."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import APIRouter, BackgroundTasks, FastAPI, Response

from bench.counting import ADDRESS
from bench.lag import lifespan, take_lags

SIDE = os.environ.get("BENCH_SIDE", "stock")

# One entry for each no-op that ran: append is atomic in every thread, len() is the count.
executed: list[None] = []
started_at: list[int] = []  # CLOCK_MONOTONIC, which all processes of a machine share, in nanoseconds


async def noop_async(email: str) -> None:
    executed.append(None)


def noop_def(email: str) -> None:
    executed.append(None)


async def stamp(email: str) -> None:
    started_at.append(time.monotonic_ns())
    executed.append(None)


app = FastAPI(lifespan=lifespan)

if SIDE == "segundo":
    from segundo import Segundo, task

    segundo = Segundo(app)
    if os.environ.get("BENCH_DECLARED"):
        noop_async = task(noop_async)
        noop_def = task(noop_def)

    @asynccontextmanager
    async def count_commits(app: FastAPI) -> AsyncIterator[None]:
        """Inside Segundo's own lifespan: the ledger is open, and all work is done."""
        yield
        counts = json.dumps({"commits": segundo.ledger.commits, "executed": len(executed)})
        Path(os.environ["BENCH_COMMITS"], f"{os.getpid()}.json").write_text(counts)  # noqa: ASYNC240  # at the end

    if "BENCH_COMMITS" in os.environ:
        app.include_router(APIRouter(lifespan=count_commits))


@app.get("/async_async")
async def async_async(tasks: BackgroundTasks) -> dict[str, bool]:
    tasks.add_task(noop_async, ADDRESS)
    return {"ok": True}


@app.get("/def_async")
def def_async(tasks: BackgroundTasks) -> dict[str, bool]:
    tasks.add_task(noop_async, ADDRESS)
    return {"ok": True}


@app.get("/def_def")
def def_def(tasks: BackgroundTasks) -> dict[str, bool]:
    tasks.add_task(noop_def, ADDRESS)
    return {"ok": True}


@app.get("/async_def")
async def async_def(tasks: BackgroundTasks) -> dict[str, bool]:
    tasks.add_task(noop_def, ADDRESS)
    return {"ok": True}


@app.get("/plain")
async def plain() -> dict[str, bool]:
    return {"ok": True}


@app.get("/stamped")
async def stamped(tasks: BackgroundTasks) -> dict[str, bool]:
    tasks.add_task(stamp, ADDRESS)
    return {"ok": True}


@app.get("/which")
async def which(tasks: BackgroundTasks) -> dict[str, int]:
    tasks.add_task(noop_async, ADDRESS)
    return {"pid": os.getpid()}


@app.get("/executed")
async def count_executed() -> dict[str, int]:
    return {"executed": len(executed)}


@app.get("/started")
async def give_started() -> Response:
    return Response(json.dumps(started_at), media_type="application/json")


app.get("/lags")(take_lags)  # not by a router: FastAPI looks through each at every request
