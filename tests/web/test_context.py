"""What a task sees around it: its own record, context variables, the loop or the thread it runs on."""

import asyncio
import json
import logging
import threading
from contextvars import ContextVar
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI

from segundo import Segundo, TaskContext, current, task
from tests.web.apps import calling, ended, lifespan, outcome, records, running

# What a task can ask


async def test_current_knows_the_record_and_its_attempt(segundo: Segundo) -> None:
    for function in (says_who_it_is, says_who_it_is_async):
        await segundo.submit(function)
    found = await ended(2)
    assert sorted(json.loads(record["result"]) for record in found) == sorted(
        [record["id"], 1, False] for record in found
    )


def answer_of(context: TaskContext) -> list[str | int | bool]:
    return [context.id, context.attempt, context.cancelled]


@task
def says_who_it_is() -> list[str | int | bool]:
    return answer_of(current())


@task
async def says_who_it_is_async() -> list[str | int | bool]:
    return await asyncio.create_task(below())


async def below() -> list[str | int | bool]:
    return answer_of(current())


def test_current_outside_a_task_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="only inside a recorded task"):
        current()


@task
async def logs() -> None:
    current().log("half of %s %d", "it", 1)
    current().log("100 %")
    current().log("%s")


async def test_what_a_task_logs_has_its_record_in_front(
    segundo: Segundo, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "segundo.task")
    record = await outcome(segundo, logs)
    logged = [each.getMessage() for each in caplog.records if each.name == "segundo.task"]
    front = f"tests.web.test_context:logs {record['id']} (attempt 1): "
    assert logged == [front + "half of it 1", front + "100 %", front + "%s"]


inner = FastAPI()


@inner.get("/")
async def asks(context: Annotated[TaskContext, Depends(current)]) -> list[str | int | bool]:
    return answer_of(context)


@task
async def asks_an_app_below() -> Any:
    async with calling(inner) as client:
        return (await client.get("/")).json()


async def test_current_is_a_dependency_too(segundo: Segundo) -> None:
    record = await outcome(segundo, asks_an_app_below)
    assert record["result"] == [record["id"], 1, False]


# Context variables

tenant: ContextVar[str | None] = ContextVar("tenant", default="nobody")
language: ContextVar[str] = ContextVar("language")


@task
def sees() -> list[str | None]:
    return [tenant.get(), language.get("none")]


@task
async def sees_async() -> list[str | None]:
    seen = [tenant.get(), language.get("none")]
    tenant.set("changed by a task")
    return seen


@pytest.mark.parametrize("function", [sees, sees_async])
async def test_a_recorded_call_sees_no_context_variable_of_where_it_was_added(
    segundo: Segundo, function: Any
) -> None:
    tenant.set("ada")
    assert (await outcome(segundo, function))["result"] == ["nobody", "none"]


@pytest.mark.parametrize("function", [sees, sees_async])
@pytest.mark.parametrize("value", ["ada", None])
async def test_the_variables_in_carry_are_recorded_with_the_call_and_seen_by_it(
    function: Any, value: str | None
) -> None:
    app = FastAPI()
    segundo = Segundo(app, carry={"tenant": tenant, "language": language})
    async with lifespan(app):
        token = tenant.set(value)
        try:
            assert (await outcome(segundo, function))["result"] == [value, "none"]
        finally:
            tenant.reset(token)
    assert json.loads(records()[0]["carried"]) == {"tenant": value}


async def test_a_requests_variables_are_carried_from_async_and_def_endpoints_alike() -> None:
    app = FastAPI()
    Segundo(app, carry={"tenant": tenant})

    async def knows_the_tenant() -> None:
        tenant.set("ada")

    async def asynchronous(tasks: BackgroundTasks) -> None:
        tasks.add_task(sees)

    def synchronous(tasks: BackgroundTasks) -> None:
        tasks.add_task(sees)

    for endpoint in (asynchronous, synchronous):
        app.post(f"/{endpoint.__name__}", dependencies=[Depends(knows_the_tenant)])(endpoint)
    async with running(app) as client:
        await client.post("/asynchronous")
        await client.post("/synchronous")
        found = await ended(2)
    assert [json.loads(record["result"])[0] for record in found] == ["ada", "ada"]


async def test_what_carry_cannot_record_is_refused_on_the_line_of_the_call_and_named() -> None:
    app = FastAPI()
    odd: ContextVar[object] = ContextVar("odd")
    segundo = Segundo(app, carry={"odd": odd})
    async with lifespan(app):
        odd.set(object())
        with pytest.raises(Exception, match="carry=… of odd"):
            await segundo.submit(sees)
    assert records() == []


# Bystanders


@task
def says_its_thread() -> str:
    return threading.current_thread().name


async def test_an_async_task_runs_on_the_apps_loop_and_a_def_in_a_thread_of_segundos(
    segundo: Segundo,
) -> None:
    await segundo.submit(says_its_thread)
    (record,) = await ended(1)
    assert json.loads(record["result"]).startswith("segundo-task-")
    loops.clear()
    await segundo.submit(keeps_its_loop)
    await ended(2)
    assert loops == [asyncio.get_running_loop()]


loops: list[asyncio.AbstractEventLoop] = []


@task
async def keeps_its_loop() -> None:
    loops.append(asyncio.get_running_loop())
