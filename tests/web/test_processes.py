"""Whole programs, as people start them: factories, reloads, workers, `python main.py`, stops and kills."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx
import pytest

from scripts.ports import free_port
from tests.support import Server, ledger_rows, wait_until

MAIN = """
    import os
    import sys
    from fastapi import BackgroundTasks, FastAPI
    from segundo import Segundo, current, task

    def note(event: str) -> None:
        with open("events.txt", "a") as file:
            file.write(f"{event}\\n")

    @task
    def declared(event: str) -> None:
        note(event)

    def make() -> FastAPI:
        app = FastAPI()
        Segundo(app, status="/tasks")

        @app.post("/add/{event}")
        async def add(event: str, tasks: BackgroundTasks) -> str:
            tasks.add_task(declared, event)
            tasks.add_task(note, f"plain {event}")
            return VERSION

        @app.post("/later/{event}")
        async def later(event: str, tasks: BackgroundTasks) -> int:
            tasks.add_task(declared.options(delay=float(os.environ["DELAY"])), event)
            return os.getpid()

        return app

    VERSION = "one"
    app = make()

    if __name__ == "__main__":
        import uvicorn

        uvicorn.run(app, port=int(sys.argv[1]))
"""


@pytest.fixture
def main(tmp_path: Path) -> Path:
    path = tmp_path / "main.py"
    path.write_text(dedent(MAIN))
    return path


def post(server: Server, path: str) -> Any:
    return httpx.post(server.url + path, timeout=10, trust_env=False).raise_for_status().json()


def ended(folder: Path, count: int) -> list[dict[str, Any]]:
    def all_ended() -> list[dict[str, Any]] | None:
        found = ledger_rows(folder / "segundo.db")
        return found if len(found) == count and all(record["finished_at"] for record in found) else None

    return wait_until(all_ended, timeout=20) or []


def events(folder: Path) -> list[str]:
    path = folder / "events.txt"
    return path.read_text().splitlines() if path.exists() else []


def test_a_factory_makes_an_app_that_works(main: Path, tmp_path: Path) -> None:
    with Server("main:make", cwd=tmp_path, options=["--factory"]) as server:
        post(server, "/add/task")
        ended(tmp_path, 2)
    assert sorted(events(tmp_path)) == ["plain task", "task"]


def test_a_reload_loads_the_new_code_and_goes_on_with_the_ledger(main: Path, tmp_path: Path) -> None:
    with Server("main:app", cwd=tmp_path, options=["--reload"], env={"DELAY": "3600"}) as server:
        assert post(server, "/add/before") == "one"
        post(server, "/later/waiting")
        main.write_text(dedent(MAIN).replace('VERSION = "one"', 'VERSION = "two"'))
        wait_until(lambda: answer(server, "/add/after") == "two", timeout=20)
        wait_until(lambda: {"before", "after", "plain after"} <= set(events(tmp_path)))
        states = [record["state"] for record in ledger_rows(tmp_path / "segundo.db")]
        assert states.count("queued") == 1
    assert "Traceback" not in server.output()


def answer(server: Server, path: str) -> Any:
    try:
        return post(server, path)
    except httpx.HTTPError:
        return None  # it is just being loaded again


def test_two_workers_share_the_ledger_and_run_each_call_once(main: Path, tmp_path: Path) -> None:
    with Server("main:app", cwd=tmp_path, options=["--workers", "2"]) as server:
        for number in range(20):
            post(server, f"/add/{number}")
        found = ended(tmp_path, 40)
    assert {(record["state"], record["claim"]) for record in found} == {("succeeded", 1)}
    assert sorted(events(tmp_path)) == sorted(
        [str(number) for number in range(20)] + [f"plain {number}" for number in range(20)]
    )


def test_a_server_that_runs_no_lifespan_is_warned_about_and_works(main: Path, tmp_path: Path) -> None:
    with Server("main:app", cwd=tmp_path, options=["--lifespan", "off"]) as server:
        post(server, "/add/task")
        ended(tmp_path, 2)
    assert "the app's lifespan did not run" in server.output()
    assert sorted(events(tmp_path)) == ["plain task", "task"]


class Program:
    """`python ARGUMENTS`, until it is killed."""

    def __init__(self, arguments: Sequence[str], cwd: Path, port: int, **env: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=cwd,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def __enter__(self) -> "Program":
        wait_until(self._answers, timeout=20)
        return self

    def _answers(self) -> bool:
        assert self._process.poll() is None, "the program ended while starting"
        try:
            return httpx.get(f"{self.url}/openapi.json", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def post(self, path: str) -> Any:
        return httpx.post(self.url + path, timeout=10, trust_env=False).raise_for_status().json()

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)


def test_what_main_recorded_of_itself_runs_after_a_kill_in_another_program(
    main: Path, tmp_path: Path
) -> None:
    port = free_port()
    with Program(["main.py", str(port)], tmp_path, port, DELAY="0.5") as program:
        program.post("/add/at once")
        ended(tmp_path, 2)
        assert program.post("/later/after the kill") == program._process.pid
    waiting, *_ = [record for record in ledger_rows(tmp_path / "segundo.db") if not record["finished_at"]]
    assert waiting["task"] == "main:declared"
    assert waiting["state"] in ("queued", "waiting")  # or the kill came before the release
    with Server("main:app", cwd=tmp_path):
        found = ended(tmp_path, 3)
    assert {record["task"] for record in found} == {"main:declared", "main:note"}
    assert events(tmp_path)[-1] == "after the kill"


def test_what_another_program_recorded_runs_in_main_started_by_hand(main: Path, tmp_path: Path) -> None:
    with Server("main:app", cwd=tmp_path, env={"SEGUNDO_CONCURRENCY": "0"}) as server:
        post(server, "/add/task")
        wait_until(
            lambda: [row["state"] for row in ledger_rows(tmp_path / "segundo.db")].count("queued") == 2
        )
    port = free_port()
    with Program(["main.py", str(port)], tmp_path, port):
        ended(tmp_path, 2)
    assert sorted(events(tmp_path)) == ["plain task", "task"]


def test_a_module_started_by_its_dotted_name_records_under_it(main: Path, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    main.rename(tmp_path / "shop" / "web.py")
    port = free_port()
    with Program(["-m", "shop.web", str(port)], tmp_path, port) as program:
        program.post("/add/task")
        found = ended(tmp_path, 2)
    assert {record["task"] for record in found} == {"shop.web:declared", "shop.web:note"}


# Shutdown

STOPPING = """
    import asyncio
    import pathlib
    import time
    from fastapi import BackgroundTasks, FastAPI
    from segundo import Segundo, current, task

    app = FastAPI()
    Segundo(app)

    def note(event: str) -> None:
        with open("events.txt", "a") as file:
            file.write(f"{event}\\n")

    def wait_for(name: str) -> None:
        while not pathlib.Path(name).exists():
            time.sleep(0.01)

    async def wait_async_for(name: str) -> None:
        while not pathlib.Path(name).exists():
            await asyncio.sleep(0.01)

    @task
    async def declared_async() -> None:
        note(f"declared_async starts, attempt {current().attempt}")
        await wait_async_for("gate")
        note("declared_async ends")

    async def plain_async() -> None:
        note("plain_async starts")
        await wait_async_for("gate")
        note("plain_async ends")

    @task
    def declared() -> None:
        note(f"declared starts, attempt {current().attempt}")
        wait_for("gate")
        note("declared ends")

    def plain() -> None:
        note("plain starts")
        wait_for("gate")
        note("plain ends")

    @task
    def attentive() -> None:
        note("attentive starts")
        while not current().cancelled:
            time.sleep(0.01)
        note("attentive was told to end")

    @app.post("/{name}")
    async def add(name: str, tasks: BackgroundTasks) -> None:
        tasks.add_task(globals()[name])
"""

KINDS = ["declared_async", "plain_async", "declared", "plain"]


@pytest.fixture
def stopping(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(dedent(STOPPING))
    return tmp_path


def started(folder: Path, names: Sequence[str]) -> bool:
    return {event.partition(" ")[0] for event in events(folder)} == set(names)


def by_name(records: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {record["task"].partition(":")[2]: record for record in records}


def outcomes(records: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    found = by_name(records)
    return {name: (found[name]["state"], found[name]["reason"], found[name]["crashes"]) for name in found}


def test_a_stop_waits_for_what_runs_within_its_grace_and_claims_no_more(stopping: Path) -> None:
    with Server("main:app", cwd=stopping, env={"SEGUNDO_GRACE": "30"}) as server:
        for name in KINDS:
            post(server, f"/{name}")
        wait_until(lambda: started(stopping, KINDS))
        server.terminate()
        wait_until(lambda: "Waiting for application shutdown" in server.output())
        (stopping / "gate").touch()
        assert server.wait() in (0, -signal.SIGTERM)
    assert {record["state"] for record in ended(stopping, 4)} == {"succeeded"}
    assert sorted(events(stopping)[4:]) == sorted(f"{name} ends" for name in KINDS)


def test_past_its_grace_a_stop_ends_the_process_and_nothing_is_lost(stopping: Path) -> None:
    with Server("main:app", cwd=stopping, env={"SEGUNDO_GRACE": "0.2"}) as server:
        for name in KINDS:
            post(server, f"/{name}")
        wait_until(lambda: started(stopping, KINDS))
        server.terminate()
        assert server.wait() in (0, -signal.SIGTERM)  # with two threads that nobody can stop

        found = by_name(ledger_rows(stopping / "segundo.db"))
        cancelled, lost = found["declared_async"], found["plain_async"]
        assert (cancelled["state"], cancelled["failures"], cancelled["crashes"]) == ("queued", 0, 0)
        assert (lost["state"], lost["reason"]) == ("failed", "WorkerLost")

        (stopping / "gate").touch()
        server.start()
        found = ended(stopping, 4)
    assert outcomes(found) == {
        "declared_async": ("succeeded", None, 0),
        "declared": ("succeeded", None, 0),
        "plain_async": ("failed", "WorkerLost", 0),
        "plain": ("failed", "WorkerLost", 0),
    }
    assert events(stopping)[:4].count("declared_async starts, attempt 1") == 1
    again = events(stopping)[4:]
    assert "declared_async starts, attempt 1" in again
    assert "declared starts, attempt 1" in again
    assert not [event for event in again if event.startswith("plain") and event.endswith("starts")]


def test_a_def_task_that_looks_at_cancelled_ends_in_good_order(stopping: Path) -> None:
    with Server("main:app", cwd=stopping, env={"SEGUNDO_GRACE": "0.5"}) as server:
        post(server, "/attentive")
        wait_until(lambda: started(stopping, ["attentive"]))
        server.terminate()
        server.wait()
    (record,) = ledger_rows(stopping / "segundo.db")
    assert events(stopping)[-1] == "attentive was told to end"
    assert record["state"] == "succeeded"


def test_a_kill_loses_nothing_that_was_declared_and_starts_no_plain_function_twice(stopping: Path) -> None:
    with Server("main:app", cwd=stopping) as server:
        for name in KINDS:
            post(server, f"/{name}")
        wait_until(lambda: started(stopping, KINDS))
        server.kill()
        (stopping / "gate").touch()
        server.start()
        found = ended(stopping, 4)
    assert outcomes(found) == {
        "declared_async": ("succeeded", None, 1),
        "declared": ("succeeded", None, 1),
        "plain_async": ("failed", "WorkerLost", 1),
        "plain": ("failed", "WorkerLost", 1),
    }
    assert events(stopping).count("plain starts") == events(stopping).count("plain_async starts") == 1


def test_a_request_that_is_cut_off_by_a_kill_has_recorded_all_or_nothing(main: Path, tmp_path: Path) -> None:
    with Server("main:app", cwd=tmp_path) as server:
        with closing(httpx.Client(base_url=server.url, trust_env=False)) as client:
            for number in range(30):
                client.post(f"/add/{number}")
        server.kill()
        server.start()
        found = ended(tmp_path, 60)
    assert {record["state"] for record in found} <= {"succeeded", "failed"}
    assert {record["reason"] for record in found} <= {None, "WorkerLost"}
