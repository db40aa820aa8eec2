"""The app of these tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from pydantic import BaseModel

from segundo import INJECTED, Handle, Segundo, current, task

ran: list[object] = []


class Order(BaseModel):
    number: int
    lines: list[str] = []


def account() -> str:
    return "the shop's"


@task
async def send(to: str, /, order: Order, *cc: str, urgent: bool = False, **headers: str) -> None:
    ran.append(("send", to))


@task
def charge(amount: int, of: Annotated[str, Depends(account)] = INJECTED) -> None:
    ran.append(("charge", amount, of))


@task
async def fail(why: str) -> None:
    raise ArithmeticError(why)


@task
async def parent() -> None:
    current().add_task(charge, 3)


def log(line: str, level: int = 1) -> None:
    ran.append(("log", line))


def broken(line: str) -> None:
    raise LookupError(line)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    ran.clear()
    yield


app = FastAPI(lifespan=lifespan)
segundo = Segundo(app)

CALLS = {"charge": (charge, 5), "fail": (fail, "of itself"), "parent": (parent,), "log": (log, "hello")}
CALLS["broken"] = (broken, "lost")


@app.post("/calls/{name}")
async def add(name: str, tasks: BackgroundTasks) -> None:
    function, *args = CALLS[name]
    tasks.add_task(function, *args)  # type: ignore[arg-type]  # any of them


@app.post("/send")
async def add_send(tasks: BackgroundTasks) -> None:
    order = Order(number=1, lines=["nuts"])
    tasks.add_task(send, "ada", order, "bob", "eve", urgent=True, sender="shop")


@app.post("/in-process")
async def add_in_process(tasks: BackgroundTasks) -> None:
    tasks.add_task(lambda line, level=1: ran.append(line), "here")  # type: ignore[misc]  # the lambda's type


@app.post("/in-process/failing")
async def add_in_process_failing(tasks: BackgroundTasks) -> None:
    tasks.add_task(lambda: 1 / 0)
    tasks.add_task(lambda: ran.append("after it"))


@app.post("/submit/{name}")
async def submit(name: str) -> str | None:
    function, *args = CALLS[name]
    handle: Handle[object] = await segundo.submit(function, *args)  # type: ignore[call-overload]  # any of them
    return handle.id


@app.websocket("/socket/{name}")
async def socket(websocket: WebSocket, name: str, tasks: BackgroundTasks) -> None:
    await websocket.accept()
    function, *args = CALLS[name]
    tasks.add_task(function, *args)  # type: ignore[arg-type]  # any of them
    await websocket.receive_text()


@app.post("/slow")
async def slow(tasks: BackgroundTasks) -> None:
    await asyncio.sleep(0)
    tasks.add_task(log, "slow")
