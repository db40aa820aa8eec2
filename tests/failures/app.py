"""An app whose calls write down that they ran. Run it by uvicorn in a folder of its own."""

import asyncio
import os
from pathlib import Path

from fastapi import BackgroundTasks, FastAPI

from segundo import Retry, Segundo, task

RAN, STARTED, GO = Path("ran"), Path("started"), Path("go")

app = FastAPI()
segundo = Segundo(app, modules=["tests.failures.app"])


def write_down(file: Path, tag: str) -> None:
    with file.open("a") as lines:
        lines.write(tag + "\n")


def plain(tag: str) -> None:
    write_down(RAN, tag)


@task(retry=Retry(attempts=2, wait="constant", base=0.0))
async def declared(tag: str) -> str:
    write_down(RAN, tag)
    return tag


@task
async def slow(tag: str) -> str:
    """Runs until there is a file `go`."""
    write_down(STARTED, tag)
    while not GO.exists():  # noqa: ASYNC110, ASYNC240  (its test makes the file, and there is nothing to wait on)
        await asyncio.sleep(0.01)
    write_down(RAN, tag)
    return tag


@app.post("/calls/{tag}")
async def work(tag: str, tasks: BackgroundTasks) -> list[str]:
    """Three calls: two plain ones, in order, and one declared."""
    handles = [tasks.add_task(function, tag) for function in (plain, plain, declared)]
    return [handle.id for handle in handles]  # type: ignore[attr-defined]  # FastAPI's own annotation, our object


@app.post("/slow/{tag}")
async def begin(tag: str, tasks: BackgroundTasks) -> None:
    tasks.add_task(slow, tag)


@app.get("/alive")
async def alive() -> int:
    return os.getpid()
