"""`after=`: what a call waits for, in a request and on older records, and what becomes of it."""

import json
from typing import Any, Literal

import pytest
from fastapi import APIRouter, Depends, FastAPI

from segundo import BackgroundTasks, Segundo, task
from segundo.errors import UnknownRecord
from tests.support import wait_until_async
from tests.web.apps import ended, messages, records, running
from tests.web.tasks import declared, events, note

OnFailure = Literal["cancel", "run"]


@task
def breaks(event: str) -> None:
    note(event)
    raise ValueError(event)


async def nobody() -> None:
    """Lets every reader through."""


def an_app() -> FastAPI:
    app = FastAPI()
    Segundo(app, status=APIRouter(prefix="/tasks", dependencies=[Depends(nobody)]))

    @app.post("/in-order")
    async def in_order(tasks: BackgroundTasks) -> None:
        first = tasks.add_task(declared, "first")
        second = tasks.add_task(declared.options(priority=1), "second")
        tasks.add_task(declared.options(after=[first, second], priority=9), "third")

    @app.post("/one-fails")
    async def one_fails(tasks: BackgroundTasks, on_failure: OnFailure) -> None:
        several = [tasks.add_task(declared, "well"), tasks.add_task(breaks, "badly")]
        tasks.add_task(declared.options(after=several, on_failure=on_failure), "behind")

    @app.post("/behind")
    async def behind(tasks: BackgroundTasks, id: str) -> str:
        tasks.add_task(note, "beside")
        return tasks.add_task(declared.options(after=id), "behind").id or ""

    @app.post("/later")
    async def later(tasks: BackgroundTasks) -> str:
        return tasks.add_task(declared.options(delay=3600), "later").id or ""

    return app


async def test_a_call_waits_for_all_that_it_is_put_behind() -> None:
    async with running(an_app()) as client:
        await client.post("/in-order")
        await ended(3)
    assert events()[-1] == "third"


async def test_one_of_several_that_fails_cancels_the_call_which_says_whom_it_waited_for() -> None:
    async with running(an_app()) as client:
        await client.post("/one-fails?on_failure=cancel")
        found = {json.loads(record["arguments"])["event"]: record for record in await ended(3)}
        shown = (await client.get(f"/tasks/{found['behind']['id']}")).json()
    assert (shown["state"], shown["reason"], shown["waits_for"]) == ("cancelled", "PredecessorFailed", [])
    assert shown["error"]["before"] == found["badly"]["id"]
    assert "behind" not in events()


async def test_a_call_that_runs_come_what_may_runs_after_a_failure() -> None:
    async with running(an_app()) as client:
        await client.post("/one-fails?on_failure=run")
        await ended(3)
    assert events()[-1] == "behind"


async def test_a_call_behind_an_older_record_says_for_whom_it_waits_until_that_has_ended() -> None:
    async with running(app := an_app()) as client:
        older = (await client.post("/later")).json()
        behind = (await client.post(f"/behind?id={older}")).json()
        await wait_until_async(lambda: events() == ["beside"])
        shown = (await client.get(f"/tasks/{behind}")).json()
        assert (shown["state"], shown["waits_for"]) == ("waiting", [older])
        await app.state.segundo.ledger.cancel(older)
        shown = (await client.get(f"/tasks/{behind}")).json()
        assert (shown["state"], shown["waits_for"]) == ("cancelled", [])


async def test_a_call_behind_what_has_succeeded_runs_at_once() -> None:
    async with running(an_app()) as client:
        await client.post("/in-order")
        older, *_ = await ended(3)
        await client.post(f"/behind?id={older['id']}")
        await ended(5)
    assert "behind" in events()


async def test_a_record_that_waits_for_its_request_says_so() -> None:
    app = an_app()

    @app.post("/accepted")
    async def accepted(tasks: BackgroundTasks) -> Any:
        first = tasks.add_task(declared, "first")
        return tasks.accepted(tasks.add_task(declared.options(after=first), "second"))

    async with running(app) as client:
        answer = await client.post("/accepted")
        (first,) = {record["id"] for record in await ended(2)} - {answer.json()["id"]}
    assert answer.json()["waits_for"] == ["request", first]


@pytest.mark.parametrize("id", ["no-such-record", "0" * 36])
async def test_a_request_whose_call_is_behind_no_record_is_refused_and_leaves_nothing(
    id: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(an_app()) as client:
        answer = await client.post(f"/behind?id={id}")
        assert answer.status_code == 409
        assert f"after='{id}': there is no such record" in answer.json()["detail"]
        assert (records(), events()) == ([], [])
        await client.post("/later")
    assert [line for line in messages(caplog, "ERROR") if id in line]
    assert len(records()) == 1


async def test_submit_behind_no_record_says_so_on_its_line(segundo: Segundo) -> None:
    with pytest.raises(UnknownRecord, match="no-such-record"):
        await segundo.submit(declared.options(after="no-such-record"), "never")


async def test_submit_takes_handles_records_and_ids(segundo: Segundo) -> None:
    first = await segundo.submit(declared, "1")
    second = await segundo.submit(declared.options(after=first.record), "2")
    third = await segundo.submit(declared.options(after=[first, second.record, second.record.id]), "3")
    await segundo.submit(declared.options(after=(third,), on_failure="run"), "4")
    await ended(4)
    assert events() == ["1", "2", "3", "4"]


async def test_what_is_behind_a_duplicates_record_is_behind_the_live_one(segundo: Segundo) -> None:
    live = await segundo.submit(declared.options(key="k", delay=3600), "never")
    duplicate = await segundo.submit(declared.options(key="k"), "never")
    behind = await segundo.submit(declared.options(after=duplicate.record), "behind")
    assert await segundo.ledger.waits_for([behind.record.id]) == {behind.record.id: [live.record.id]}


def test_a_wrong_after_is_refused_on_the_line_of_the_call() -> None:
    with pytest.raises(ValueError, match="on_failure"):
        declared.options(after="id", on_failure="retry")  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(ValueError, match="give after=… too"):
        declared.options(on_failure="run")


@pytest.mark.parametrize("wrong", [5, [5], [None], b"id"])
def test_what_is_neither_handle_record_nor_id_is_refused_on_the_line_that_says_it(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"options\(after=…\) takes handles, records or their ids"):
        declared.options(after=wrong)
