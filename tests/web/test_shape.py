"""Before Segundo hangs on to FastAPI it looks whether it can; other tools hang on to the same function."""

import functools
import subprocess
import sys
from typing import Annotated, Any

import fastapi.dependencies.utils
import fastapi.routing
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Request
from fastapi.responses import JSONResponse

import segundo
from segundo import INJECTED, Segundo, shape, task
from tests.support import ROOT
from tests.web.apps import ended, lifespan, running, states
from tests.web.tasks import events, note

DOCTORED = """
import importlib.machinery, re, sys
module, before, after = sys.argv[1:]

class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target)
        if name == module:
            spec.loader = Loader(name, spec.origin)
        return spec

class Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, name):
        changed, count = re.subn(before, after, self.get_source(name))
        assert count
        return compile(changed, self.path, "exec")

sys.meta_path.insert(0, Finder)

from fastapi import FastAPI
from segundo import Segundo
from segundo.errors import ConfigurationError

app = FastAPI()
for _ in range(2):
    try:
        Segundo(app)
    except ConfigurationError as error:
        print(error)
Segundo(app, inject=False)
"""

TOMORROW = {
    "renames the function": (
        ("fastapi.routing", "    solve_dependencies,\n", "    solve_dependencies as solve,\n"),
        "no fastapi.routing.solve_dependencies",
    ),
    "renames its parameter": (
        ("fastapi.dependencies.utils", "background_tasks", "tasks"),
        "no parameter 'background_tasks' of solve_dependencies",
    ),
    "renames the request's stack": (
        ("fastapi.routing", "fastapi_inner_astack", "fastapi_request_stack"),
        "no exit stack 'fastapi_inner_astack' in a request's scope",
    ),
    "renames the function's stack": (
        ("fastapi.routing", "fastapi_function_astack", "fastapi_stack"),
        "no exit stack 'fastapi_function_astack' in a request's scope",
    ),
    "calls it with positional arguments": (
        ("fastapi.routing", r"solve_dependencies\(\s+request=request", "solve_dependencies(request"),
        "no call of solve_dependencies by keyword",
    ),
}


@pytest.mark.parametrize("change", TOMORROW)
def test_a_fastapi_of_tomorrow_is_refused_before_the_app_starts(change: str) -> None:
    doctored, lacks = TOMORROW[change]
    said = subprocess.run(
        [sys.executable, "-c", DOCTORED, *doctored], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert lacks in said[0]
    assert f"pip install 'fastapi=={shape.NEWEST_KNOWN}'" in said[0]
    assert "Segundo(app, inject=False)" in said[0]
    assert said[1] == said[0], "the app was taken for one that has a Segundo"


def around(original: Any) -> Any:
    @functools.wraps(original)
    async def tool(**given: Any) -> Any:
        return await original(**given)

    return tool


def nameless(original: Any) -> Any:
    async def tool(**given: Any) -> Any:
        return await original(**given)

    return tool


@pytest.mark.parametrize("tool", [around, nameless])
async def test_tools_that_wrap_the_same_function_keep_ours(
    tool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    routing: Any = fastapi.routing
    monkeypatch.setattr(routing, "solve_dependencies", tool(fastapi.dependencies.utils.solve_dependencies))
    app = counting_app()  # the tool was first
    routing.solve_dependencies = tool(routing.solve_dependencies)
    counting_app()  # and another app comes last
    async with running(app) as client:
        assert (await client.post("/")).json() == "Recorded"
        await ended(1)
    assert states() == ["succeeded"]
    assert events() == ["task"]


def counting_app() -> FastAPI:
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> str:
        tasks.add_task(note, "task")
        return type(tasks.tasks[0]).__name__

    return app


async def test_the_way_without_private_names_leaves_fastapi_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    routing: Any = fastapi.routing
    own = fastapi.dependencies.utils.solve_dependencies
    monkeypatch.setattr(routing, "solve_dependencies", own)
    app = FastAPI()
    Segundo(app, inject=False)
    assert routing.solve_dependencies is own
    counting_app()  # which needs the private name, and puts its wrapper around

    @app.get("/")
    async def endpoint(request: Request, given: BackgroundTasks) -> JSONResponse:
        assert type(given) is BackgroundTasks
        tasks = segundo.BackgroundTasks(request)
        tasks.add_task(note, "task")
        return await tasks.recorded(JSONResponse("ok"))

    async with running(app) as client:
        assert (await client.get("/")).json() == "ok"
        await ended(1)
    assert events() == ["task"]


def notes_later(own: BackgroundTasks) -> None:
    own.add_task(note, "added by the dependency")


@task
async def with_dependency(_: Annotated[None, Depends(notes_later)] = INJECTED) -> None:
    note("ran")


async def test_without_private_names_what_a_tasks_dependency_adds_is_a_child_call_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = fastapi.dependencies.utils.solve_dependencies
    monkeypatch.setattr(fastapi.routing, "solve_dependencies", own)
    app = FastAPI()
    seg = Segundo(app, inject=False)
    async with lifespan(app):
        await seg.submit(with_dependency)
        await ended(2)
    assert events() == ["ran", "added by the dependency"]
