"""How late the event loop of an app under load comes back, again and again: its lag."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response

TICK = 0.001  # seconds between two looks at the event loop's lag

lags: list[tuple[float, float]] = []  # when (CLOCK_MONOTONIC), and how late, in seconds


async def watch() -> None:
    """Note again and again how much later than asked the loop comes back."""
    while True:
        asked = time.monotonic() + TICK
        await asyncio.sleep(TICK)
        now = time.monotonic()
        lags.append((now, now - asked))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    watcher = asyncio.create_task(watch()) if os.environ.get("BENCH_WATCH_LOOP") else None
    yield
    if watcher:
        watcher.cancel()


async def take_lags() -> Response:
    """The lags since the last time that this was asked."""
    taken = lags[:]
    lags.clear()
    return Response(json.dumps(taken), media_type="application/json")
