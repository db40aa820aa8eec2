"""What the log says of arguments and results: nothing, at any level."""

import logging
from pathlib import Path
from textwrap import dedent

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI

from segundo import Segundo, task
from tests.security.forging import alter
from tests.support import Server, ledger_rows, wait_until
from tests.web.apps import ended, running

SECRET = "s3cr3t-of-the-caller"


@task
def echo(value: str) -> str:
    return value


@task
def fail(value: str) -> None:
    raise ValueError("said by the task itself")


async def test_no_argument_or_result_is_in_the_log_at_its_most_talkative(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    app = FastAPI()
    Segundo(app)

    @app.post("/")
    async def add(tasks: BackgroundTasks) -> None:
        tasks.add_task(echo, SECRET)
        tasks.add_task(fail, SECRET)
        tasks.add_task(lambda value: 1 / 0, SECRET)  # in process

    async with running(app) as client:
        assert (await client.post("/")).status_code == 200
        await ended(2)
    printed = capfd.readouterr()
    assert "said by the task itself" in caplog.text
    assert SECRET not in caplog.text + printed.out + printed.err


MAIN = f"""
    import logging
    from fastapi import FastAPI
    from segundo import BackgroundTasks, Retry, Segundo, current, task

    logging.basicConfig(level=logging.DEBUG)
    app = FastAPI()
    seg = Segundo(app)

    @task
    async def echo(value: str) -> str:
        return value

    @task(retry=Retry(attempts=2, base=0.0))
    def fail(value: str) -> None:
        raise ValueError("said by the task itself")

    @task
    async def parent(value: str) -> str:
        current().add_task(echo, value)
        return value

    @task
    def number(value: int) -> int:
        return value

    @task
    async def returns_what_it_must_not(value: str) -> int:
        return value

    def plain(value: str) -> None:
        raise ValueError("said by the plain function")

    @app.post("/")
    async def add(tasks: BackgroundTasks) -> None:
        value = "{SECRET[:5]}" + "{SECRET[5:]}"
        for function in (echo, fail, parent, returns_what_it_must_not, plain):
            tasks.add_task(function, value)
        tasks.add_task(echo.options(key="k", delay=3600), value)
        tasks.add_task(echo.options(key="k"), value)
        tasks.add_task(lambda given: 1 / 0, value)

    @app.post("/wrong")
    async def wrong(tasks: BackgroundTasks) -> None:
        tasks.add_task(number, "{SECRET[:5]}" + "{SECRET[5:]}")
"""


def count_of_ended(ledger: Path) -> int:
    return len(ledger_rows(ledger, "SELECT 1 FROM records WHERE finished_at IS NOT NULL"))


def test_a_servers_log_with_everything_at_debug_has_no_argument_and_no_result(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(dedent(MAIN))
    environment = {"PYTHONASYNCIODEBUG": "1"}
    with (
        Server("main:app", cwd=tmp_path, options=["--log-level", "trace"], env=environment) as server,
        httpx.Client(base_url=server.url, trust_env=False) as client,
    ):
        assert client.post("/").status_code == 200
        assert client.post("/wrong").status_code == 500
        wait_until(lambda: count_of_ended(tmp_path / "segundo.db") == 7)  # the eighth is to run in an hour
        alter("UPDATE records SET arguments = replace(arguments, 'value', 'other'), run_at = 0")
        wait_until(lambda: "PayloadError" in server.output())
        server.stop()
    log = server.output()
    for words in ("said by the task itself", "said by the plain function", "ResultError", "ArgumentError"):
        assert words in log
    assert SECRET not in log
