"""What the log says of arguments and results: nothing, at any level."""

import logging

import pytest
from fastapi import BackgroundTasks, FastAPI

from segundo import Segundo, task
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
