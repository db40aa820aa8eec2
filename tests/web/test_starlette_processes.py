"""Starlette and raw ASGI apps under uvicorn, killed with `kill -9` after the answer."""

from pathlib import Path
from textwrap import dedent

import httpx
import pytest

from tests.support import Server, ledger_rows
from tests.web.test_processes import ended, events

TASKS = """
    import asyncio
    import pathlib
    from segundo import current, task

    def note(event):
        with open("events.txt", "a") as file:
            file.write(f"{event}\\n")

    @task
    async def declared(event):
        while not pathlib.Path("gate").exists():
            await asyncio.sleep(0.01)
        note(event)
"""

STARLETTE = """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route
    from segundo import BackgroundTasks, Segundo
    from tasks import declared

    async def add(request):
        tasks = BackgroundTasks(request)
        tasks.add_task(declared, "declared")
        return await tasks.recorded(JSONResponse("recorded"))

    app = Starlette(routes=[Route("/", add, methods=["POST"])])
    Segundo(app)
"""

RAW = """
    from starlette.responses import JSONResponse
    from segundo import BackgroundTasks, Segundo
    from tasks import declared

    async def asgi(scope, receive, send):
        assert scope["type"] == "http"
        tasks = BackgroundTasks(app)
        tasks.add_task(declared, "declared")
        response = await tasks.recorded(JSONResponse("recorded"))
        await response(scope, receive, send)

    app = Segundo(asgi)
"""


@pytest.mark.parametrize("main", [STARLETTE, RAW], ids=["starlette", "raw"])
def test_what_was_recorded_survives_a_kill_after_the_answer(main: str, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(dedent(TASKS))
    (tmp_path / "main.py").write_text(dedent(main))
    with Server("main:app", cwd=tmp_path) as server:
        for _ in range(2):
            assert httpx.post(server.url, trust_env=False).json() == "recorded"
        server.kill()
        assert not any(record["finished_at"] for record in ledger_rows(tmp_path / "segundo.db"))
        (tmp_path / "gate").touch()
        server.start()
        found = ended(tmp_path, 2)
        assert httpx.post(server.url, trust_env=False).json() == "recorded"
        ended(tmp_path, 3)
        server.terminate()
        server.wait()
    assert {record["state"] for record in found} == {"succeeded"}
    assert events(tmp_path) == ["declared"] * 3
    assert "Traceback" not in server.output()
    assert "lifespan did not run" not in server.output()
