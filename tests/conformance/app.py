"""The app of the suite, copied to main.py: the same everywhere, for the environment names ledger and broker.

What its tasks do is in events.txt; what they wait for are files that the test makes.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, SecretStr

from segundo import INJECTED, Retry, RetryLater, Segundo, TaskFailed, current, task

KEY = "4711"


def say(*words: object) -> None:
    with Path("events.txt").open("a") as events:
        events.write(" ".join(map(str, (os.getpid(), *words))) + "\n")


def operator(authorization: str = Header("")) -> None:
    if authorization != f"Bearer {KEY}":
        raise HTTPException(403)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, str]]:
    say("starts")
    yield {"pool": "the-pool"}
    say("stops")


app = FastAPI(lifespan=lifespan)
tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
segundo = Segundo(
    app,
    status=APIRouter(prefix="/tasks", dependencies=[Depends(operator)]),
    cancel=Depends(operator),
    carry={"tenant": tenant},
)


def is_there(name: str) -> bool:
    return Path(name).exists()


async def until_there(name: str) -> None:
    while not is_there(name):
        await a_moment()


async def a_moment() -> None:
    """What is waited for happens in another process."""
    await asyncio.sleep(0.01)


def wait_until_there(name: str) -> None:
    while not is_there(name):
        time.sleep(0.01)


# Plain functions


def plain(name: str) -> None:
    say("plain", name)


async def plain_async(name: str) -> None:
    say("plain_async", name)


def plain_fails(name: str) -> None:
    say("plain_fails", name)
    raise RuntimeError(name)


def plain_until(name: str) -> None:
    say("begins", "plain", name)
    wait_until_there(name)
    say("ends", "plain", name)


# Declared tasks


@task
def declared(name: str) -> str:
    say("declared", name)
    return f"{name} is done"


@task
async def declared_async(name: str) -> str:
    say("declared_async", name)
    return f"{name} is done"


@task(queue="other")
async def elsewhere(name: str) -> str:
    say("elsewhere", name)
    return name


@task
def until(name: str, gate: str = "") -> str:
    say("begins", "declared", name)
    wait_until_there(gate or name)
    say("ends", "declared", name)
    return name


@task
async def until_async(name: str) -> None:
    say("begins", "async", name)
    await until_there(name)
    say("ends", "async", name)


@task(crashes=0)
async def until_once(name: str) -> None:
    say("begins", "once", name)
    await until_there(name)
    say("ends", "once", name)


@task(priority=5)
async def ranked(name: str, number: int) -> None:
    say("ranked", name, number)


# Values


class Order(BaseModel):
    id: UUID
    email: str
    lines: list[tuple[str, int]]
    total: Decimal


@dataclass
class Place:
    name: str
    position: tuple[float, float]


class Receipt(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    order: Order
    place: Place
    day: date
    at: datetime
    wait: timedelta
    raw: bytes


@task
async def values(order: Order, place: Place, day: date, at: datetime, wait: timedelta, raw: bytes) -> Receipt:
    return Receipt(order=order, place=place, day=day, at=at, wait=wait, raw=raw)


@task
def tenants(name: str) -> str:
    return f"{name} of {tenant.get()}"


@task(keep_arguments=False)
async def forgets(name: str) -> str:
    await until_there(name)
    return "done"


class Account(BaseModel):
    email: str
    password: SecretStr


@task(secret=True)
async def registers(account: Account, gate: str) -> int:
    await until_there(gate)
    return len(account.password.get_secret_value())


@task(keep_result=False)
def keeps_nothing(name: str) -> str:
    return name


@task(retry=Retry(attempts=3))
def returns_what_cannot_be_kept(name: str) -> Any:
    say("returns_what_cannot_be_kept", name)
    return object()


# Failures


class Refused(Exception):
    """What is not to be tried again."""


@task(retry=Retry(attempts=3, wait="constant", base=0.2, jitter=False))
def third_time(name: str) -> int:
    say("third_time", name, current().attempt)
    if current().attempt < 3:
        raise ConnectionError(f"{name} not yet")
    return current().attempt


@task(retry=Retry(attempts=2, wait="constant", base=0.1, jitter=False))
async def fails(name: str) -> None:
    say("fails", name, current().attempt)
    try:
        raise KeyError("the-cause")
    except KeyError as error:
        raise ValueError(f"{name} failed") from error


@task(retry=Retry(attempts=2))
async def later(name: str) -> int:
    if current().attempt == 1:
        raise RetryLater(0.3)
    return current().attempt


@task(retry=Retry(attempts=5, give_up_on=(Refused,)))
def gives_up(name: str) -> None:
    say("gives_up", name)
    raise Refused(name)


@task
def fails_until(name: str) -> str:
    if not Path(name).exists():
        raise FileNotFoundError(name)
    return f"{name} was there"


@task(timeout=0.2)
async def too_long(name: str) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        say("cleaned", name)


@task(timeout=0.2)
def too_long_in_a_thread(name: str) -> str:
    while not current().cancelled:
        time.sleep(0.01)
    say("told", name)
    return "too late"


@task(timeout=0.2, retry=Retry(attempts=2, wait="constant", base=0.1, jitter=False))
async def slow_at_first(name: str) -> int:
    if current().attempt == 1:
        await asyncio.sleep(3600)
    return current().attempt


# Dependencies and children


async def connection(request: Request) -> AsyncGenerator[str]:
    name = f"connection-of-{current().id}"
    say("opens", name, request.state.pool)
    try:
        yield name
    except BaseException as error:
        say("rolls-back", name, type(error).__name__)
        raise
    say("commits", name)


def clock() -> str:
    return "the real clock"


app.dependency_overrides[clock] = lambda: "another clock"

Connected = Annotated[str, Depends(connection)]


@task
async def injected(name: str, opened: Connected = INJECTED, at: Annotated[str, Depends(clock)] = "") -> str:
    return f"{name}, {at}"


@task
def injected_in_a_thread(name: str, opened: Connected = INJECTED) -> None:
    raise LookupError(name)


@task
async def forever(name: str, opened: Connected = INJECTED) -> None:
    say("begins", "forever", name)
    await asyncio.sleep(3600)


@task
def forever_in_a_thread(name: str) -> None:
    say("begins", "forever_in_a_thread", name)
    while True:
        current().check()
        time.sleep(0.01)


@task
def ends_late(name: str) -> str:
    """Sees that it is cancelled, and goes on to its end."""
    say("begins", "ends_late", name)
    while not current().cancelled:
        time.sleep(0.01)
    return "all the same"


@task
async def reports(name: str) -> None:
    current().progress(1, total=3, message=f"{name} begins")
    await until_there(name)
    for done in (2, 3):
        current().progress(done, total=3, message=f"{name} at {done}")


@task(retry=Retry(attempts=2, wait="constant", base=0.1, jitter=False))
async def parent(name: str) -> list[str | None]:
    first = current().add_task(declared, f"{name}-first-of-attempt-{current().attempt}")
    second = current().add_task(declared.options(after=first), f"{name}-second")
    if current().attempt == 1:
        raise ConnectionError
    return [first.id, second.id]


TASKS: dict[str, Any] = {
    function.__name__: function
    for function in (
        *(plain, plain_async, plain_fails, plain_until, declared, declared_async, elsewhere, until),
        *(
            until_async,
            until_once,
            ranked,
            tenants,
            forgets,
            keeps_nothing,
            returns_what_cannot_be_kept,
            third_time,
        ),
        *(fails, later, gives_up, fails_until, too_long, too_long_in_a_thread, slow_at_first, injected),
        *(injected_in_a_thread, forever, forever_in_a_thread, ends_late, reports, parent),
    )
}


class Wanted(BaseModel):
    """A call that a test asks for. `after`: ids, or the numbers of calls of the same request."""

    task: str
    args: list[Any]
    options: dict[str, Any]
    after: list[int | str]


def add_all(wanted: list[Wanted], tasks: BackgroundTasks) -> list[Any]:
    handles: list[Any] = []
    for one in wanted:
        function = TASKS[one.task]
        options = dict(one.options)
        if one.after:
            options["after"] = [
                handles[before] if isinstance(before, int) else before for before in one.after
            ]
        handles.append(tasks.add_task(function.options(**options) if options else function, *one.args))
    return handles


@app.post("/calls")
async def calls(wanted: list[Wanted], tasks: BackgroundTasks) -> list[str]:
    return [handle.id for handle in add_all(wanted, tasks)]


@app.post("/calls/in-a-thread")
def calls_in_a_thread(wanted: list[Wanted], tasks: BackgroundTasks) -> list[str]:
    return [handle.id for handle in add_all(wanted, tasks)]


@app.post("/calls/accepted")
async def accepted(wanted: list[Wanted], tasks: BackgroundTasks) -> Response:
    response: Response = tasks.accepted(add_all(wanted, tasks)[0])  # type: ignore[attr-defined]  # it is ours
    return response


@app.post("/calls/refused")
async def refused(wanted: list[Wanted], tasks: BackgroundTasks) -> None:
    ids = [handle.id for handle in add_all(wanted, tasks)]
    raise HTTPException(409, ids)


@app.post("/calls/streamed/{gate}")
async def streamed(gate: str, wanted: list[Wanted], tasks: BackgroundTasks) -> StreamingResponse:
    (handle,) = add_all(wanted, tasks)

    async def body() -> AsyncGenerator[str]:
        yield f"{handle.id}\n"
        await until_there(gate)
        yield "the last\n"

    return StreamingResponse(body())


@app.post("/tenants/{name}")
async def of_a_tenant(name: str, tasks: BackgroundTasks) -> list[str | None]:
    tenant.set(name)
    return [tasks.add_task(tenants, "the-call").id]  # type: ignore[func-returns-value]  # a handle


@app.post("/accounts/{gate}")
async def account(gate: str, account: Account, tasks: BackgroundTasks) -> list[str | None]:
    return [tasks.add_task(registers, account, gate).id]  # type: ignore[func-returns-value]


SENT = Receipt(
    order=Order(
        id=UUID(int=7), email="ada@example.com", lines=[("nuts", 3), ("bolts", 4)], total=Decimal("10.50")
    ),
    place=Place("Ávila", (40.65, -4.7)),
    day=date(2026, 11, 24),
    at=datetime.fromisoformat("2026-11-24T16:00:00.123456+01:00"),
    wait=timedelta(hours=1, microseconds=5),
    raw=b"\x00\xff\xfe",
)


@app.post("/values")
async def send_values() -> bool:
    """Whether they come back as they were sent, in type too."""
    sent = SENT
    handle = await segundo.submit(values, sent.order, sent.place, sent.day, sent.at, sent.wait, sent.raw)
    return await handle.result(timeout=20) == sent


@app.get("/results/{id}")
async def result(id: str) -> dict[str, Any]:
    """What a handle says of a record, in whichever process it runs."""
    try:
        return {"result": await segundo.handle(id).result(timeout=20)}
    except TaskFailed as failed:
        error = failed.error
        return {
            "raised": type(failed).__name__,
            "reason": failed.reason,
            "error": None if error is None else [error.type, error.message, [str(e) for e in error.causes]],
        }
