"""The routes that show a record, and the 202 that points to one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Header, HTTPException
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount
from starlette.types import Message

import segundo
from segundo import Segundo, current, task
from segundo.errors import ConfigurationError
from tests.web.apps import ended, lifespan, records, running, served_client
from tests.web.tasks import declared, note

PUBLIC = {"id", "task", "state", "progress", "created_at", "run_at", "started_at", "finished_at"}


def app_that(endpoint: Callable[..., Any], **settings: Any) -> FastAPI:
    app = FastAPI()
    Segundo(app, **{"status": "/tasks", **settings})
    app.post("/")(endpoint)
    return app


def accepts(tasks: segundo.BackgroundTasks) -> Response:
    return tasks.accepted(tasks.add_task(declared, "secret"))


async def test_accepted_answers_202_with_the_record_and_its_address_which_works() -> None:
    async with running(app_that(accepts)) as client:
        answer = await client.post("/")
        (record,) = await ended(1)
        assert answer.status_code == 202
        assert answer.json().keys() == PUBLIC
        assert (answer.json()["id"], answer.json()["state"]) == (record["id"], "waiting")
        assert answer.headers["location"] == f"/tasks/{record['id']}"
        shown = await client.get(answer.headers["location"])
    assert (shown.status_code, shown.json()["state"]) == (200, "succeeded")
    assert shown.json()["task"] == "tests.web.tasks:declared"


async def test_the_record_exists_before_its_address_is_told() -> None:
    async with served_client(app_that(accepts)) as client, client.stream("POST", "/") as answer:
        assert (await client.get(answer.headers["location"])).status_code == 200


MALFORMED = [
    "x",
    "0",
    "%00",
    "%FF",
    "%ED%A0%80",
    "%0A",
    "%25",
    "a" * 10_000,
    "../tasks",
    "..%2Ftasks",
    "' OR 1=1 --",
]


async def test_an_unknown_id_is_404_and_never_pending() -> None:
    async with served_client(app_that(accepts)) as client:
        await client.post("/")
        await ended(1)
        answers = {id: (await client.get(f"/tasks/{id}")).status_code for id in ("0" * 36, *MALFORMED)}
    assert {id: code for id, code in answers.items() if code != 404} == {}


@pytest.mark.parametrize("id", ["\ud800", "\0", "\U0010ffff"], ids=ascii)
async def test_an_id_that_a_server_has_decoded_wrongly_is_404_too(id: str) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    app = app_that(accepts)
    async with lifespan(app):
        asgi = {"version": "3.0"}
        scope = {"type": "http", "asgi": asgi, "method": "GET", "path": f"/tasks/{id}", "headers": []}
        await app({**scope, "query_string": b""}, receive, send)
    assert sent[0]["status"] == 404


async def test_without_the_apps_own_dependencies_nobody_sees_arguments_result_or_error() -> None:
    async with running(app_that(accepts)) as client:
        location = (await client.post("/")).headers["location"]
        await ended(1)
        shown = await client.get(location)
    assert shown.json().keys() == PUBLIC
    assert "secret" not in shown.text.lower()


def operator(authorization: str = Header()) -> None:
    if authorization != "operator":
        raise HTTPException(403)


async def test_behind_the_apps_own_dependencies_a_reader_sees_all() -> None:
    router = APIRouter(prefix="/operations/tasks", dependencies=[Depends(operator)])
    async with running(app_that(accepts, status=router)) as client:
        location = (await client.post("/")).headers["location"]
        await ended(1)
        assert location.startswith("/operations/tasks/")
        assert (await client.get(location)).status_code == 422
        assert (await client.get(location, headers={"authorization": "nobody"})).status_code == 403
        shown = (await client.get(location, headers={"authorization": "operator"})).json()
    assert shown.keys() > PUBLIC
    assert (shown["arguments"], shown["result"], shown["error"]) == ({"event": "secret"}, "SECRET", None)
    assert (shown["queue"], shown["priority"], shown["attempt"]) == ("default", 5, 1)


@task
async def says_how_far_it_is() -> None:
    current().progress(3, 10, "for ada@example.com")


@pytest.mark.parametrize("own", [True, False])
async def test_progress_is_shown_and_its_message_to_those_who_may_see_all(own: bool) -> None:
    async def endpoint(tasks: segundo.BackgroundTasks) -> Response:
        return tasks.accepted(tasks.add_task(says_how_far_it_is))

    router = APIRouter(prefix="/tasks", dependencies=[Depends(lambda: None)] if own else [])
    async with running(app_that(endpoint, status=router)) as client:
        location = (await client.post("/")).headers["location"]
        await ended(1)
        shown = (await client.get(location)).json()["progress"]
    assert shown == {"done": 3, "total": 10, **({"message": "for ada@example.com"} if own else {})}


async def test_a_router_without_dependencies_shows_no_more_than_a_prefix_does() -> None:
    async with running(app_that(accepts, status=APIRouter(prefix="/open"))) as client:
        location = (await client.post("/")).headers["location"]
        await ended(1)
        assert (await client.get(location)).json().keys() == PUBLIC


async def test_an_error_is_shown_as_json_to_those_who_may_see_it() -> None:
    async def endpoint(tasks: segundo.BackgroundTasks) -> Response:
        return tasks.accepted(tasks.add_task(fails))

    router = APIRouter(prefix="/tasks", dependencies=[Depends(lambda: None)])
    async with running(app_that(endpoint, status=router)) as client:
        location = (await client.post("/")).headers["location"]
        await ended(1)
        shown = (await client.get(location)).json()
    assert (shown["state"], shown["reason"]) == ("failed", "ZeroDivisionError")
    assert shown["error"]["type"] == "ZeroDivisionError"


@task
async def fails() -> float:
    return 1 / 0


async def test_the_openapi_schema_describes_the_route() -> None:
    async with running(app_that(accepts)) as client:
        schema = (await client.get("/openapi.json")).json()
    assert schema["paths"]["/tasks/{id}"]["get"]["responses"].keys() == {"200", "404", "422"}
    described = schema["components"]["schemas"]
    assert described["RecordView"]["properties"].keys() == PUBLIC
    assert "RecordDetail" not in described


# The address


async def test_the_address_has_the_root_path_of_a_proxy_that_strips_it() -> None:
    async with served_client(app_that(accepts), root_path="/api/v1") as client:
        location = (await client.post("/")).headers["location"]
        assert location.startswith("/api/v1/tasks/")
        await ended(1)
        assert (await client.get(location.removeprefix("/api/v1"))).status_code == 200


async def test_the_address_has_the_root_path_that_the_app_itself_has() -> None:
    app = app_that(accepts)
    app.root_path = "/api/v1"
    async with running(app) as client:
        location = (await client.post("/")).headers["location"]
    assert location.startswith("/api/v1/tasks/")


async def test_the_address_leads_to_the_app_that_has_the_routes_also_from_an_app_mounted_below_it() -> None:
    app = FastAPI()
    below = FastAPI()
    Segundo(app, status="/tasks")
    below.post("/")(accepts)
    app.mount("/below", below)
    async with running(app) as client:
        location = (await client.post("/below/")).headers["location"]
        await ended(1)
        assert (await client.get(location)).status_code == 200


async def test_the_address_leads_through_the_app_that_it_is_mounted_in() -> None:
    inner = app_that(accepts)
    outer = Starlette(routes=[Mount("/outer", inner)], lifespan=inner.router.lifespan_context)
    async with running(outer) as client:
        location = (await client.post("/outer/")).headers["location"]
        await ended(1)
        assert (await client.get(location)).status_code == 200


@pytest.mark.parametrize("path", ["/tasks/{id}", "/tasks/{id}/events"])
async def test_a_ledger_that_cannot_be_asked_is_a_503_and_no_unknown_record(path: str) -> None:
    app = app_that(accepts)
    async with running(app) as client:
        id = (await client.post("/")).json()["id"]
        await ended(1)
        await app.state.segundo.ledger.close()
        answer = await client.get(path.format(id=id))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


# What cannot be accepted


async def test_accepted_while_the_routes_are_off_is_an_error_on_the_callers_line() -> None:
    async def endpoint(tasks: segundo.BackgroundTasks) -> None:
        with pytest.raises(ConfigurationError, match="status="):
            tasks.accepted(tasks.add_task(declared, "task"))
        raise HTTPException(418)

    async with running(app_that(endpoint, status=None)) as client:
        assert (await client.post("/")).status_code == 418
        assert (await client.get("/tasks/1")).status_code == 404
    assert records() == []


async def test_accepted_of_a_call_in_process_is_an_error_on_the_callers_line() -> None:
    async def endpoint(tasks: segundo.BackgroundTasks) -> None:
        with pytest.raises(ConfigurationError, match="has no record"):
            tasks.accepted(tasks.add_task(lambda: None))

    async with running(app_that(endpoint)) as client:
        assert (await client.post("/")).status_code == 200


@pytest.mark.parametrize("wrong", [None, "an id"])
async def test_accepted_of_what_is_no_handle_is_an_error_on_the_callers_line(wrong: Any) -> None:
    async def endpoint(tasks: segundo.BackgroundTasks) -> None:
        with pytest.raises(TypeError, match=rf"the handle that add_task returns, not {wrong!r}"):
            tasks.accepted(wrong)

    async with running(app_that(endpoint)) as client:
        assert (await client.post("/")).status_code == 200


def test_accepted_without_a_segundo_is_an_error() -> None:
    tasks = segundo.BackgroundTasks()
    with pytest.raises(ConfigurationError, match="needs an app with a Segundo"):
        tasks.accepted(tasks.add_task(note, "task"))


@pytest.mark.parametrize("prefix", ["tasks", "", "http://tasks"])
def test_a_prefix_that_is_none_is_refused_at_once(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="begins with"):
        Segundo(FastAPI(), status=prefix)


def test_a_router_without_a_prefix_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="needs a prefix"):
        Segundo(FastAPI(), status=APIRouter())


# Keys


async def test_a_duplicates_handle_and_answer_lead_to_the_live_record() -> None:
    async def endpoint(tasks: segundo.BackgroundTasks) -> Response:
        return tasks.accepted(tasks.add_task(declared.options(key="one", delay=3600), "task"))

    async with running(app_that(endpoint)) as client:
        first, second = await client.post("/"), await client.post("/")
        assert (first.status_code, second.status_code) == (202, 202)
        assert second.headers["location"] == first.headers["location"]
        assert second.json()["id"] == first.json()["id"]
        assert second.json()["state"] in ("waiting", "queued")  # the live record's, not the duplicate's
    live, duplicate = sorted(records(), key=lambda record: record["reason"] or "")
    assert (duplicate["state"], duplicate["reason"], duplicate["same_as"]) == (
        "cancelled",
        "Duplicate",
        live["id"],
    )


async def test_a_key_is_free_again_once_its_record_has_ended() -> None:
    async def endpoint(tasks: segundo.BackgroundTasks) -> None:
        tasks.add_task(declared.options(key="one"), "task")

    async with running(app_that(endpoint)) as client:
        for count in (1, 2, 3):
            await client.post("/")
            assert {record["state"] for record in await ended(count)} == {"succeeded"}


async def test_two_calls_of_one_request_with_one_key_are_one(tmp_path: Path) -> None:
    ids: list[str | None] = []

    async def endpoint(tasks: segundo.BackgroundTasks) -> None:
        handles = [tasks.add_task(declared.options(key="one"), str(number)) for number in (1, 2)]
        tasks.add_task(lambda: ids.extend(handle.id for handle in handles))

    async with running(app_that(endpoint)) as client:
        await client.post("/")
        found = await ended(2)
    assert [record["reason"] for record in found].count("Duplicate") == 1
    assert len(set(ids)) == 1


async def test_keys_are_of_a_task_so_two_tasks_may_have_the_same(caplog: pytest.LogCaptureFixture) -> None:
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(declared.options(key="one"), "task")
        tasks.add_task(other.options(key="one"))

    async with running(app_that(endpoint)) as client:
        await client.post("/")
        found = await ended(2)
    assert [record["state"] for record in found] == ["succeeded", "succeeded"]


@task
def other() -> None: ...
