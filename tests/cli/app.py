"""An app for workers, copied to where a test runs. Its tasks wait for the test, and say what they do."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, Request

from segundo import INJECTED, Segundo, current, task

EVENTS = Path("events.txt")


def say(*words: object) -> None:
    with EVENTS.open("a") as events:
        events.write(" ".join(map(str, (os.getpid(), *words))) + "\n")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
    say("starts")
    yield {"pool": "pool"}
    say("stops")


app = FastAPI(lifespan=lifespan)
Segundo(app)


def make() -> FastAPI:
    return app


class Middleware:
    """What is often wrapped around an app, and then served in its place."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __call__(self, scope: object, receive: object, send: object) -> None:
        await self.app(scope, receive, send)  # type: ignore[arg-type]  # ASGI


wrapped = Middleware(app)


def exists(file: str) -> bool:
    return Path(file).exists()


def processes_that_meet() -> set[str]:
    return {line.split()[0] for line in EVENTS.read_text().splitlines() if "meets" in line}


async def a_moment() -> None:
    """What is waited for happens in another process."""
    await asyncio.sleep(0.01)


@task(crashes=2)
async def until(file: str) -> None:
    """Ends once there is such a file."""
    say("begins", file)
    while not exists(file):
        await a_moment()
    say("ends", file)


@task(crashes=2)
def stubborn(file: str) -> None:
    """The same in a thread, which nothing can stop."""
    say("begins", file)
    while not exists(file):
        time.sleep(0.01)  # what it waits for happens in another process
    say("ends", file)


@task(crashes=2)
async def blocking(file: str) -> None:
    """The same, and nothing else runs in the process meanwhile."""
    stubborn(file)


@task(crashes=2)
async def meet(number: int) -> None:
    """Ends once tasks of two processes have begun."""
    say("meets", number)
    while len(processes_that_meet()) < 2:
        await a_moment()
    say("met", number)


def pool_of(request: Request) -> str:
    pool: str = request.state.pool
    return pool


@task
async def uses(pool: Annotated[str, Depends(pool_of)]) -> None:
    say("uses", pool)


async def transaction() -> AsyncIterator[None]:
    try:
        yield
    except asyncio.CancelledError:
        say("rolls-back")
        raise


@task
async def rolls_back(file: str, transaction: Annotated[None, Depends(transaction)] = INJECTED) -> None:
    current().progress(1, 4, f"waits for {file}")
    await until(file)


def plain(file: str) -> None:
    stubborn(file)


@app.post("/{name}/{file}")
async def add(name: str, file: str, tasks: BackgroundTasks) -> None:
    tasks.add_task(
        {"until": until, "plain": plain, "stubborn": stubborn, "rolls_back": rolls_back}[name], file
    )
