"""What a task adds with `current().add_task`: recorded with its own success, dropped with all other ends."""

import asyncio
import threading
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi.testclient import TestClient

from segundo import Retry, Segundo, TaskContext, current, task
from segundo.errors import ArgumentError
from segundo.executors import embedded
from tests.support import wait_until_async
from tests.web.apps import ended, lifespan, outcome, records, states
from tests.web.tasks import declared, events, fail, note, note_async


@task
def adds(*notes: str) -> str:
    for each in notes:
        current().add_task(declared, each)
    return "added"


@task
async def adds_async(*notes: str) -> str:
    for each in notes:
        current().add_task(declared, each)
        await asyncio.sleep(0)
    return "added"


PARENTS = [adds, adds_async]


@pytest.mark.parametrize("parent", PARENTS)
async def test_what_a_task_adds_is_recorded_when_it_has_succeeded_and_runs_at_once(
    segundo: Segundo, parent: Any
) -> None:
    await segundo.submit(parent, "one", "two")
    first, *children = await ended(3)
    assert first["result"] == '"added"'
    assert {child["result"] for child in children} == {'"ONE"', '"TWO"'}
    assert sorted(events()) == ["one", "two"]


@task(retry=Retry(attempts=2, wait=lambda failures: 0.0))
def stumbles() -> None:
    current().add_task(declared, f"of attempt {current().attempt}")
    if current().attempt == 1:
        raise ValueError


async def test_an_attempt_that_fails_drops_what_it_added_and_the_next_adds_its_own(segundo: Segundo) -> None:
    await segundo.submit(stumbles)
    await ended(2)
    assert events() == ["of attempt 2"]


@task
def raises() -> None:
    current().add_task(declared, "never")
    raise ValueError


@task
async def is_cancelled() -> None:
    current().add_task(declared, "never")
    note("added")
    await asyncio.sleep(60)


@task(timeout=0.001)
async def is_too_slow() -> None:
    current().add_task(declared, "never")
    await asyncio.sleep(60)


@task
def returns_what_cannot_be_kept() -> int:
    current().add_task(declared, "never")
    return "no number"  # type: ignore[return-value]  # that is the mistake


@pytest.mark.parametrize("parent", [raises, is_too_slow, returns_what_cannot_be_kept])
async def test_a_task_that_does_not_succeed_adds_nothing(segundo: Segundo, parent: Any) -> None:
    assert (await outcome(segundo, parent))["state"] == "failed"
    assert (len(records()), events()) == (1, [])


async def test_a_task_that_is_cancelled_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "BEAT", 0.05)
    segundo = Segundo(app := FastAPI())
    async with lifespan(app):
        handle = await segundo.submit(is_cancelled)
        await wait_until_async(lambda: events() == ["added"])
        await segundo.ledger.cancel(handle.record.id)
        (record,) = await ended(1)
    assert (record["state"], events()) == ("cancelled", ["added"])


gate = threading.Event()


def waits_at_the_gate(event: str) -> None:
    note(event)
    gate.wait(20)


@task
def adds_plain_ones() -> None:
    current().add_task(waits_at_the_gate, "first")
    current().add_task(fail, "second")
    current().add_task(note_async, "third")


async def test_plain_calls_that_a_task_adds_run_in_the_order_added_whatever_fails(segundo: Segundo) -> None:
    gate.clear()
    await segundo.submit(adds_plain_ones)
    await wait_until_async(lambda: events() == ["first"])
    assert sorted(states()) == ["running", "succeeded", "waiting", "waiting"]
    gate.set()
    assert sorted(record["state"] for record in await ended(4)) == ["failed", *["succeeded"] * 3]
    assert events() == ["first", "second", "third"]


@task
async def adds_from_many_threads() -> None:
    def add(number: int) -> str | None:
        return current().add_task(declared, str(number)).id

    ids = await asyncio.gather(*(asyncio.to_thread(add, number) for number in range(20)))
    assert len(set(ids)) == 20


async def test_a_task_adds_from_any_of_its_threads(segundo: Segundo) -> None:
    await segundo.submit(adds_from_many_threads)
    await ended(21)
    assert sorted(map(int, events())) == list(range(20))


@task
def adds_a_chain() -> None:
    first = current().add_task(declared, "first")
    second = current().add_task(declared.options(after=first), "second")
    current().add_task(declared.options(after=[second, current().id], priority=9), "third")


async def test_what_a_task_adds_can_be_put_in_order(segundo: Segundo) -> None:
    await segundo.submit(adds_a_chain)
    await ended(4)
    assert events() == ["first", "second", "third"]


@task
def comes_again() -> None:
    if current().attempt == 1 and len(events()) < 3:
        note("again")
        current().add_task(comes_again.options(key="the only one"))


async def test_a_task_may_add_itself_under_the_key_that_it_has(segundo: Segundo) -> None:
    await segundo.submit(comes_again.options(key="the only one"))
    assert [record["reason"] for record in await ended(4)] == [None] * 4


@task
def adds_behind_nothing() -> None:
    current().add_task(declared, "never")
    current().add_task(declared.options(after="no-such-record"), "never")


async def test_a_call_behind_no_record_fails_the_task_that_added_it_and_says_so(
    segundo: Segundo, caplog: pytest.LogCaptureFixture
) -> None:
    record = await outcome(segundo, adds_behind_nothing)
    assert (record["state"], record["reason"], record["error"]["type"]) == (
        "failed",
        "ChildRefused",
        "UnknownRecord",
    )
    assert "no-such-record" in record["error"]["message"]
    assert [each for each in caplog.records if record["id"] in each.getMessage()]
    assert (len(records()), events()) == (1, [])
    await segundo.submit(declared, "the next")
    await ended(2)
    assert events() == ["the next"]


@task
def adds_what_cannot_be_recorded() -> list[str]:
    said: list[str] = []
    for function, args in [(lambda: None, ()), (declared, (1,)), (note, (object(),))]:
        try:
            current().add_task(function, *args)  # type: ignore[arg-type]  # that is the mistake
        except ArgumentError as error:
            said.append(str(error))
    return said


async def test_what_cannot_be_recorded_is_refused_on_the_line_that_adds_it(segundo: Segundo) -> None:
    record = await outcome(segundo, adds_what_cannot_be_recorded)
    assert [line.partition("(")[0].rpartition(".")[2] for line in record["result"]] == [
        "<lambda>",
        "declared",
        "note",
    ]
    assert len(records()) == 1


kept: list[TaskContext] = []


@task
def keeps_its_context() -> None:
    kept.append(current())


async def test_a_task_that_is_over_adds_no_more(segundo: Segundo) -> None:
    kept.clear()
    await segundo.submit(keeps_its_context)
    await ended(1)
    with pytest.raises(RuntimeError, match="over"):
        kept[0].add_task(declared, "late")


def test_under_a_test_client_child_calls_run_before_the_call_returns() -> None:
    gate.set()
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(adds, "child")
        tasks.add_task(adds_plain_ones)

    with TestClient(app) as client:
        client.post("/")
        assert sorted(events()) == ["child", "first", "second", "third"]
        assert [event for event in events() if event != "child"] == ["first", "second", "third"]


async def test_a_task_knows_its_name_and_the_users_app(segundo: Segundo) -> None:
    kept.clear()
    await segundo.submit(keeps_its_context)
    await ended(1)
    assert (kept[0].task, kept[0].app) == ("tests.web.test_children:keeps_its_context", segundo.app)
