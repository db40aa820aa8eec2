"""The two classes in an app without a `Segundo`: what they do, and what only a `Segundo` can."""

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTasks as StarletteBackgroundTasks
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from segundo import BackgroundTask, BackgroundTasks, Handle
from segundo.errors import ConfigurationError
from tests.web.apps import calling
from tests.web.tasks import declared, events, fail, note, note_async


async def test_calls_run_in_order_and_a_failure_stops_the_rest() -> None:
    tasks = BackgroundTasks()
    tasks.add_task(note, "first")
    tasks.add_task(note_async, event="second")
    tasks.add_task(fail, "third")
    tasks.add_task(note, "never")
    with pytest.raises(ValueError, match="third"):
        await tasks()
    assert events() == ["first", "second", "third"]


async def test_a_declared_task_is_called_like_any_function() -> None:
    tasks = BackgroundTasks()
    handle = tasks.add_task(declared, "task")
    await tasks()
    assert events() == ["task"]
    assert (handle.id, handle.recorded, repr(handle)) == (None, False, "Handle(None)")


async def test_a_function_may_be_given_by_its_keyword_and_take_one_of_that_name() -> None:
    tasks = BackgroundTasks()
    tasks.add_task(func=note, event="by keyword")
    tasks.add_task(takes_a_function, func="its own")
    await tasks()
    await BackgroundTask(takes_a_function, func="alone")()
    assert events() == ["by keyword", "its own", "alone"]


def takes_a_function(func: str) -> None:
    note(func)


@pytest.mark.parametrize("make", [BackgroundTask, lambda: BackgroundTasks().add_task()])
def test_a_call_of_nothing_is_refused(make: Any) -> None:
    with pytest.raises(TypeError, match="needs a function"):
        make()


async def test_the_object_is_made_and_attached_by_hand_as_in_starlette() -> None:
    async def endpoint(request: Request) -> Response:
        tasks = BackgroundTasks([BackgroundTask(note, "from the start")])
        tasks.add_task(note, "added")
        return PlainTextResponse("ok", background=tasks)

    async with calling(Starlette(routes=[Route("/", endpoint)])) as client:
        assert (await client.get("/")).text == "ok"
    assert events() == ["from the start", "added"]


async def test_fastapi_injects_its_own_object_where_no_segundo_is() -> None:
    app = FastAPI()
    seen: list[Any] = []

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        seen.append(type(tasks))
        tasks.add_task(note, "task")

    async with calling(app) as client:
        await client.get("/")
    assert issubclass(seen[0], StarletteBackgroundTasks)
    assert events() == ["task"]


def test_options_need_a_segundo_and_say_so_on_their_line() -> None:
    tasks = BackgroundTasks()
    with pytest.raises(ConfigurationError, match="need an app with a Segundo"):
        tasks.add_task(declared.options(delay=1), "task")
    assert tasks.tasks == []


async def test_there_is_nothing_to_flush() -> None:
    tasks = BackgroundTasks()
    tasks.add_task(note, "task")
    await tasks.flush()
    assert events() == []


def test_a_handle_of_no_record_has_none_to_show() -> None:
    with pytest.raises(RuntimeError):
        print(Handle[None](None).record)
