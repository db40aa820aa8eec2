"""What can be said of one call: when, how urgently, under which key, behind which other, in which queue."""

import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI

from segundo import Segundo, task
from segundo.errors import ArgumentError, LedgerUnavailable, UnknownRecord
from tests.support import ledger_rows, wait_until_async
from tests.web.apps import LEDGER, ended, lifespan, messages, records, running, states
from tests.web.tasks import declared, declared_async, events, fail, note


@task
def fails() -> None:
    raise OSError


@task(queue="slow", priority=8, retention="1h", crashes=1, name="a task with a name of its own")
def described() -> None: ...


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("dely", r"options\(dely=…\): there is no such option; did you mean delay=…\?"),
        ("on_fail", r"did you mean on_failure=…\?"),
        ("colour", "they are delay, run_at, priority, queue, key, after, on_failure$"),
    ],
)
def test_an_option_that_there_is_not_is_refused_and_the_nearest_named(option: str, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        declared.options(**{option: 1})


# When


@pytest.mark.parametrize("delay", [0.3, timedelta(milliseconds=300)])
async def test_a_delayed_call_is_due_that_long_after_it_was_recorded(segundo: Segundo, delay: Any) -> None:
    await segundo.submit(declared.options(delay=delay), "late")
    await segundo.submit(declared, "now")
    found = await ended(2)
    assert events() == ["now", "late"]
    late, now = sorted(found, key=lambda record: record["created_at"] - record["run_at"])
    assert late["run_at"] - late["created_at"] == pytest.approx(0.3)
    assert late["started_at"] >= late["run_at"]
    assert now["run_at"] == now["created_at"]


@pytest.mark.parametrize(
    "moment",
    [
        lambda: time.time() + 0.3,
        lambda: datetime.now(UTC) + timedelta(seconds=0.3),
        lambda: datetime.now(timezone(timedelta(hours=5))) + timedelta(seconds=0.3),
    ],
    ids=["unix seconds", "UTC", "another zone"],
)
async def test_a_call_with_a_moment_is_due_at_it(segundo: Segundo, moment: Any) -> None:
    at = moment()
    await segundo.submit(declared.options(run_at=at), "late")
    (record,) = await ended(1)
    due = at.timestamp() if isinstance(at, datetime) else at
    assert record["run_at"] == pytest.approx(due)
    assert record["started_at"] >= due


async def test_a_moment_in_the_past_is_now(segundo: Segundo) -> None:
    await segundo.submit(declared.options(run_at=1.0), "long ago")
    await ended(1)


def test_a_moment_without_a_time_zone_is_refused_on_its_line() -> None:
    with pytest.raises(ValueError, match="time zone"):
        declared.options(run_at=datetime(2030, 1, 1))


async def test_a_delayed_call_of_a_request_is_due_that_long_after_it() -> None:
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(declared.options(delay=0.3), "late")
        tasks.add_task(declared, "now")

    async with running(app) as client:
        await client.post("/")
        await ended(2)
    assert events() == ["now", "late"]


# How urgently


async def test_the_most_urgent_of_what_is_due_runs_first() -> None:
    app = FastAPI()
    segundo = Segundo(app, concurrency=1)
    gate.clear()
    async with lifespan(app):
        await segundo.submit(waits_for_the_gate)
        await wait_until_async(lambda: states() == ["running"])
        for priority in (0, 9, 5, 3, 7):
            await segundo.submit(declared.options(priority=priority), str(priority))
        await segundo.submit(declared, "default")
        gate.set()
        await ended(7)
    assert events() == ["9", "7", "5", "default", "3", "0"]


gate = threading.Event()


@task
def waits_for_the_gate() -> None:
    gate.wait(20)


async def test_a_declaration_says_what_is_recorded_of_each_call_and_options_change_it_for_one(
    segundo: Segundo,
) -> None:
    await segundo.submit(described)
    await segundo.submit(described.options(queue="fast", priority=1))
    first, second = sorted(await ended(2), key=lambda record: -record["priority"])
    assert {key: first[key] for key in ("task", "queue", "priority", "retention", "crash_limit")} == {
        "task": "a task with a name of its own",
        "queue": "slow",
        "priority": 8,
        "retention": 3600,
        "crash_limit": 1,
    }
    assert (second["queue"], second["priority"], second["retention"]) == ("fast", 1, 3600)


# Behind which other


async def test_a_call_after_another_waits_until_that_has_succeeded(segundo: Segundo) -> None:
    gate.clear()
    first = await segundo.submit(waits_for_the_gate)
    second = await segundo.submit(declared.options(after=first), "second")
    await segundo.submit(declared_async.options(after=second.id), "third")
    await wait_until_async(lambda: sorted(states()) == ["running", "waiting", "waiting"])
    gate.set()
    await ended(3)
    assert events() == ["second", "third"]


async def test_a_call_after_one_that_has_ended_well_runs_at_once(segundo: Segundo) -> None:
    first = await segundo.submit(declared, "first")
    await ended(1)
    await segundo.submit(declared.options(after=first), "second")
    await ended(2)
    assert events() == ["first", "second"]


async def test_what_is_behind_a_failure_is_cancelled_to_the_end_of_the_chain(segundo: Segundo) -> None:
    first = await segundo.submit(fails.options(delay=0.2))
    second = await segundo.submit(declared.options(after=first), "second")
    await segundo.submit(declared.options(after=second), "third")
    found = await ended(3)
    assert sorted((record["state"], record["reason"]) for record in found) == [
        ("cancelled", "PredecessorFailed"),
        ("cancelled", "PredecessorFailed"),
        ("failed", "OSError"),
    ]
    assert events() == []


async def test_calls_of_one_request_may_be_behind_each_other() -> None:
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        first: Any = tasks.add_task(declared, "first")
        second: Any = tasks.add_task(declared_async.options(after=first), "second")
        tasks.add_task(declared.options(after=second), "third")

    async with running(app) as client:
        await client.post("/")
        await ended(3)
    assert events() == ["first", "second", "third"]


async def test_a_call_behind_one_in_process_has_nothing_to_wait_for() -> None:
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        first: Any = tasks.add_task(lambda: note("in process"))
        tasks.add_task(declared.options(after=first), "recorded")

    async with running(app) as client:
        await client.post("/")
        await ended(1)
    assert events() == ["in process", "recorded"]


async def test_a_call_behind_a_record_that_is_not_there_is_refused(segundo: Segundo) -> None:
    with pytest.raises(UnknownRecord, match="no such record"):
        await segundo.submit(declared.options(after="nowhere"), "never")
    assert records() == []


async def test_a_call_behind_a_duplicate_waits_for_the_live_record(segundo: Segundo) -> None:
    gate.clear()
    await segundo.submit(waits_for_the_gate.options(key="one"))
    await wait_until_async(lambda: states() == ["running"])
    duplicate = await segundo.submit(waits_for_the_gate.options(key="one"))
    await segundo.submit(declared.options(after=duplicate), "after")
    assert events() == []
    gate.set()
    await ended(3)
    assert events() == ["after"]


# Outside a request


async def test_submit_records_durably_and_returns_a_handle_that_knows_its_record(segundo: Segundo) -> None:
    handle = await segundo.submit(declared, "task")
    assert handle.recorded
    assert (handle.record.id, handle.record.state) == (handle.id, "queued")
    (record,) = await ended(1)
    assert (record["id"], record["result"]) == (handle.id, '"TASK"')


async def test_submit_takes_plain_functions_and_keywords_too(segundo: Segundo) -> None:
    await segundo.submit(note, event="plain")
    await ended(1)
    assert events() == ["plain"]


async def test_submit_refuses_what_cannot_be_recorded_and_calls_it_never(
    segundo: Segundo, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ArgumentError, match="lambda"):
        await segundo.submit(lambda: note("never"))
    with pytest.raises(ArgumentError, match="event"):
        await segundo.submit(declared, object())  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ArgumentError, match="event"):
        await segundo.submit(note, object())  # type: ignore[arg-type]  # what is tested
    assert (records(), events()) == ([], [])
    assert messages(caplog) == []  # it was told: nothing runs in process


async def test_submit_says_that_the_ledger_cannot_take_it(segundo: Segundo) -> None:
    LEDGER.unlink()
    with pytest.raises(LedgerUnavailable):
        await segundo.submit(declared, "never")


async def test_what_a_start_up_submits_runs_once_the_app_has_started() -> None:
    started: list[list[str]] = []

    async def submits(_: object) -> AsyncGenerator[None]:
        await segundo.submit(declared, "from the start-up")
        started.append(states())
        yield

    app = FastAPI()
    segundo = Segundo(app)
    app.router.lifespan_context = chained(app.router.lifespan_context, asynccontextmanager(submits))
    async with running(app):
        await ended(1)
    assert started == [["queued"]]
    assert events() == ["from the start-up"]


async def test_what_the_apps_own_lifespan_submits_runs_once_the_app_has_started(
    caplog: pytest.LogCaptureFixture,
) -> None:
    at_start: list[list[str]] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        await segundo.submit(declared, "from the start-up")
        at_start.append(states())
        yield

    app = FastAPI(lifespan=lifespan)
    segundo = Segundo(app)
    async with running(app):
        await ended(1)
        assert len(ledger_rows(LEDGER, "SELECT id FROM workers")) == 1
    assert at_start == [["queued"]]
    assert events() == ["from the start-up"]
    assert not any("lifespan did not run" in message for message in messages(caplog))


async def test_what_a_script_submits_is_left_for_the_app_to_run() -> None:
    segundo = Segundo(FastAPI())
    await segundo.submit(declared, "from a script")
    assert states() == ["queued"]


def chained(outer: Any, inner: Any) -> Any:
    @asynccontextmanager
    async def both(app: Any) -> AsyncGenerator[Any]:
        async with outer(app) as state, inner(app):
            yield state

    return both


async def test_a_plain_call_that_fails_is_not_tried_again(segundo: Segundo) -> None:
    await segundo.submit(fail, "once")
    (record,) = await ended(1)
    assert (record["state"], record["reason"], record["attempts"]) == ("failed", "ValueError", 1)
    assert events() == ["once"]
