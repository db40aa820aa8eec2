"""`current().check()`: an attempt that should end, ends there, as what it was told."""

import asyncio
import time
from contextlib import suppress
from typing import Any

import pytest
from fastapi import FastAPI

from segundo import Retry, Segundo, TaskContext, current, task
from segundo.executors import embedded
from tests.support import wait_until_async
from tests.web.apps import ended, lifespan, outcome, records
from tests.web.tasks import declared, events, note

LITTLE = 0.001  # seconds between two checks


def checks_for_ever() -> None:
    note(f"attempt {current().attempt}")
    while True:
        below(current())
        time.sleep(LITTLE)  # a thread that works


def below(context: TaskContext) -> None:
    try:
        context.check()
    except Exception as error:  # a task's own net does not catch it
        raise AssertionError from error


async def checks_for_ever_async() -> None:
    note(f"attempt {current().attempt}")
    while True:
        with suppress(asyncio.CancelledError):  # that would do; it is swallowed
            await asyncio.sleep(60)
        current().check()


async def checks_in_a_thread() -> None:
    await asyncio.to_thread(checks_for_ever)


@task(timeout=0.05, retry=Retry(attempts=2, base=0))
def too_slow() -> None:
    checks_for_ever()


@task(timeout=0.05, retry=Retry(attempts=2, base=0))
async def too_slow_async() -> None:
    await checks_for_ever_async()


@task(timeout=0.05, retry=Retry(attempts=2, base=0))
async def too_slow_in_a_thread() -> None:
    await checks_in_a_thread()


@task
def long() -> None:
    current().add_task(declared, "never")
    checks_for_ever()


@task
async def long_async() -> None:
    current().add_task(declared, "never")
    await checks_for_ever_async()


@pytest.mark.parametrize("slow", [too_slow, too_slow_async, too_slow_in_a_thread])
async def test_past_its_timeout_it_is_a_failure_that_may_be_tried_again(segundo: Segundo, slow: Any) -> None:
    record = await outcome(segundo, slow)
    assert (record["state"], record["reason"], record["failures"]) == ("failed", "TimedOut", 2)
    assert events() == ["attempt 1", "attempt 2"]


@pytest.mark.parametrize("function", [long, long_async])
async def test_asked_to_stop_it_is_cancelled(monkeypatch: pytest.MonkeyPatch, function: Any) -> None:
    monkeypatch.setattr(embedded, "BEAT", 0.05)
    app = FastAPI()
    segundo = Segundo(app)
    async with lifespan(app):
        handle = await segundo.submit(function)
        await wait_until_async(lambda: events() == ["attempt 1"])
        await segundo.ledger.cancel(handle.record.id)
        (record,) = await ended(1)
    assert (record["state"], record["reason"], record["failures"]) == ("cancelled", "Cancelled", 0)


@pytest.mark.parametrize("function", [long, long_async])
async def test_at_a_shutdown_a_declared_task_goes_back_and_nothing_is_counted(function: Any) -> None:
    record = await _shut_down_while(function)
    assert (record["state"], record["claim"]) == ("queued", 1)
    assert (record["failures"], record["crashes"], record["owner"]) == (0, 0, None)


@pytest.mark.parametrize("function", [checks_for_ever, checks_for_ever_async])
async def test_at_a_shutdown_a_plain_function_has_failed_and_is_not_started_again(function: Any) -> None:
    record = await _shut_down_while(function)
    assert (record["state"], record["reason"]) == ("failed", "WorkerLost")


async def _shut_down_while(function: Any) -> dict[str, Any]:
    app = FastAPI()
    segundo = Segundo(app, grace=0.05)
    async with lifespan(app):
        await segundo.submit(function)
        await wait_until_async(lambda: events() == ["attempt 1"])
    (record,) = records()
    return record


@task
def checks_once() -> str:
    current().check()
    return "went on"


async def test_while_an_attempt_need_not_end_a_check_does_nothing(segundo: Segundo) -> None:
    assert (await outcome(segundo, checks_once))["result"] == "went on"
