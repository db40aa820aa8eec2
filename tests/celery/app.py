"""The app of the tests, copied to main.py beside each: what its processes do is in events.txt."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, Request

from segundo import INJECTED, Retry, Segundo, current, task


def say(*words: object) -> None:
    with Path("events.txt").open("a") as events:
        events.write(" ".join(map(str, (os.getpid(), *words))) + "\n")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, str]]:
    say("starts")
    yield {"pool": "the pool"}
    say("stops")


app = FastAPI(lifespan=lifespan)
segundo = Segundo(app)
celery = segundo.celery
if "LEASE" in os.environ:  # of a process on a server
    from segundo.ledger.postgres import PostgresLedger

    how: Any = PostgresLedger.__init__
    how.__kwdefaults__["lease"] = float(os.environ["LEASE"])
if "VISIBILITY" in os.environ:
    celery.conf.broker_transport_options = {
        "visibility_timeout": float(os.environ["VISIBILITY"]),
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    }


async def connection(request: Request) -> AsyncGenerator[str]:
    say("opens", request.state.pool)
    yield "a connection"
    say("closes")


def plain(name: str) -> None:
    say("plain", name)


def waits(name: str) -> None:
    """Plain: never started twice."""
    say("begins", name)
    wait_for(name)
    say("ends", name)


def wait_for(name: str) -> None:
    while not Path(name).exists():
        time.sleep(0.01)  # what it waits for happens in another process


@task(queue="emails", retry=Retry(attempts=3, wait="constant", base=0.2, jitter=False))
async def twice(name: str) -> str:
    say("twice", name, current().attempt)
    if current().attempt == 1:
        raise ConnectionError("not yet")
    return f"{name} sent"


@task(queue="emails")
def until(name: str) -> str:
    say("begins", name)
    wait_for(name)
    say("ends", name)
    return name


@task(queue="emails")
async def injected(name: str, opened: Annotated[str, Depends(connection)] = INJECTED) -> str:
    current().add_task(plain, f"child-of-{name}")
    return f"{name} by {opened}"


@task(queue="emails")
def fails(name: str) -> None:
    raise ValueError(name)


@task(queue="emails")
async def forever(name: str) -> None:
    say("begins", name)
    try:
        await asyncio.sleep(3600)
    finally:
        say("cleaned", name)


@task(queue="emails", priority=1)
def calm(name: str) -> None:
    say("calm", name)


@task(queue="emails", priority=9)
def urgent(name: str) -> None:
    say("urgent", name)


@task(queue="emails", timeout=0.2)
async def too_long(name: str) -> None:
    await asyncio.sleep(60)


TASKS = {
    function.__name__: function
    for function in (calm, urgent, plain, waits, twice, until, injected, forever, fails, too_long)
}


@app.post("/{name}/{argument}")
async def call(name: str, argument: str, tasks: BackgroundTasks, count: int = 1) -> list[str | None]:
    return [tasks.add_task(TASKS[name], argument).id for _ in range(count)]
