"""What a type checker accepts."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, assert_type

from fastapi import BackgroundTasks as FastAPIBackgroundTasks
from fastapi import Depends
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from segundo import (
    INJECTED,
    BackgroundTask,
    BackgroundTasks,
    Handle,
    Record,
    Retry,
    Segundo,
    TaskFailed,
    current,
    task,
)


def plain(to: str, *, copies: int = 1) -> None: ...


async def fetch(url: str) -> bytes:
    return url.encode()


def named(func: str, self: int) -> None: ...


@task
def count(text: str) -> int:
    return len(text)


@task(
    name="mail", queue="emails", retry=Retry(attempts=5, on=(OSError,)), timeout=30, crashes=1, retention="7d"
)
async def send(to: str, amount: int = 0) -> str:
    current().log("attempt %s of %s", current().attempt, to)
    return to * amount


def get_rate() -> float:
    return 0.5


@task
async def convert(amount: int, rate: Annotated[float, Depends(get_rate)] = INJECTED) -> float:
    return amount * rate


def injected(tasks: BackgroundTasks) -> None:
    assert_type(tasks.add_task(convert, 1), Handle[float])


def functions(tasks: BackgroundTasks) -> None:
    assert_type(tasks.add_task(plain, "ada"), Handle[None])
    assert_type(tasks.add_task(plain, to="ada", copies=2), Handle[None])
    assert_type(tasks.add_task(fetch, "http://127.0.0.1"), Handle[bytes])
    tasks.add_task(lambda: None)
    numbers: list[int] = []
    tasks.add_task(numbers.append, 1)


def declared(tasks: BackgroundTasks) -> None:
    assert_type(tasks.add_task(count, "one two"), Handle[int])
    assert_type(tasks.add_task(send, "ada", amount=2), Handle[str])


def by_keyword(tasks: BackgroundTasks) -> None:
    assert_type(tasks.add_task(func=count, text="one two"), Handle[int])
    assert_type(tasks.add_task(func=send, to="ada"), Handle[str])
    tasks.add_task(named, func="a task's own argument", self=1)


def inside_a_task() -> None:
    assert_type(current().add_task(count, "one two"), Handle[int])
    assert_type(current().add_task(plain, "ada", copies=2), Handle[None])
    first = current().add_task(count.options(after=current().id), "one two")
    current().add_task(send.options(after=[first, "id"], on_failure="run"), "ada")
    assert_type(current().app, Any)  # of FastAPI, of Starlette, or raw ASGI
    assert_type(current().check(), None)


def with_options(tasks: BackgroundTasks) -> None:
    first = tasks.add_task(count.options(delay=timedelta(hours=1), key="one", priority=9), "one two")
    assert_type(first, Handle[int])
    assert_type(tasks.add_task(send.options(after=first, queue="slow"), "ada", 2), Handle[str])
    tasks.add_task(send.options(run_at=datetime.now(UTC)), to="ada")


def unchanged(tasks: FastAPIBackgroundTasks) -> None:
    tasks.add_task(plain, "ada", copies=2)
    tasks.add_task(send, "ada")
    tasks.add_task(send.options(delay=1), "ada", amount=1)


async def called_as_they_are() -> None:
    assert_type(count("one two"), int)
    assert_type(await send("ada", 1), str)
    assert_type(count.options(delay=1)("one two"), int)
    assert_type(count.__name__, str)


async def submitted(segundo: Segundo) -> None:
    handle = await segundo.submit(count, "one two")
    assert_type(handle, Handle[int])
    assert_type(handle.id, str | None)
    assert_type(handle.recorded, bool)
    assert_type(handle.record, Record)
    assert_type(await segundo.submit(send.options(key="ada"), "ada", amount=3), Handle[str])


async def awaited(segundo: Segundo, tasks: BackgroundTasks) -> None:
    assert_type(await (await segundo.submit(count, "one two")).result(), int)
    assert_type(await (await segundo.submit(send, "ada")).result(timeout=5), str)
    assert_type(await tasks.add_task(send.options(delay=1), "ada").result(), str)
    handle: Handle[str] = segundo.handle("0", send)
    assert_type(await handle.result(), str)
    assert_type(await segundo.handle("0", count).result(), int)
    assert_type(await segundo.find("0"), Record | None)
    try:
        await segundo.handle("0").result()
    except TaskFailed as failed:
        assert_type((failed.id, failed.task, failed.reason), tuple[str, str, str | None])
        assert_type(failed.error.traceback if failed.error else None, str | None)


def answered(tasks: BackgroundTasks) -> Response:
    return tasks.accepted(tasks.add_task(count, "one two"))


async def starlette(request: Request, socket: WebSocket) -> HTMLResponse:
    Segundo(Starlette(), status="/tasks")
    BackgroundTasks(socket).add_task(count, "one two")
    tasks = BackgroundTasks(request)
    assert_type(tasks.add_task(count, "one two"), Handle[int])
    return await tasks.recorded(HTMLResponse())


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    tasks = BackgroundTasks(Segundo(raw))
    response = await tasks.recorded(HTMLResponse())
    assert_type(response, HTMLResponse)
    await response(scope, receive, send)


def alone() -> None:
    BackgroundTasks([BackgroundTask(plain, "ada")])
    BackgroundTasks(tasks=[BackgroundTask(plain, "ada")])
    BackgroundTask(plain, "ada", copies=1)
    BackgroundTask(named, func="a task's own argument", self=1)
