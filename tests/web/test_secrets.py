"""What is not to be kept is wiped, whatever ends its record; what is secret is shown to nobody."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from pydantic import AfterValidator, BaseModel, Field, SecretBytes, SecretStr
from starlette.responses import Response
from typer.testing import CliRunner

from segundo import BackgroundTasks, Retry, Segundo, TaskFailed, task
from segundo.cli.commands import commands
from segundo.errors import ArgumentError, NotAllowed
from segundo.record import again
from tests.support import Server, ledger_rows, wait_until
from tests.web.apps import LEDGER, lifespan, records, running

PASSWORD = "hunter2-correct-horse"
GIVEN: list[Any] = []


class Account(BaseModel):
    name: str
    password: SecretStr
    keys: list[SecretBytes] = []
    note: str | None = Field(default=None, exclude=True)


@dataclass
class Login:
    account: Account
    pin: SecretStr


@task(secret=True)
async def sign_in(account: Account, password: SecretStr, token: str = "", login: Login | None = None) -> None:
    GIVEN.append((account, password, token, login))


@task(secret=True)
async def fails_with(password: SecretStr) -> None:
    try:
        raise OSError(password.get_secret_value())
    except OSError as error:
        problem = ValueError(f"no such password: {password.get_secret_value()}")
        problem.add_note(password.get_secret_value())
        raise problem from error


@task(keep_arguments=False)
async def forgets(event: str) -> str:
    return event.upper()


@task(keep_arguments=False)
async def forgets_and_returns_nothing(event: str) -> None: ...


@task(keep_result=False)
async def keeps_no_result(event: str) -> str:
    return event.upper()


@task(keep_arguments=False, retry=Retry(attempts=2, wait="constant", base=0))
async def forgets_and_fails(event: str) -> None:
    raise ValueError("no")


@pytest.fixture(autouse=True)
def nothing_given() -> None:
    GIVEN.clear()


# What is given


async def test_a_secret_task_is_given_its_secrets_as_they_were(segundo: Segundo) -> None:
    account = Account(name="ada", password=SecretStr(PASSWORD), keys=[SecretBytes(b"\x6b")], note="private")
    login = Login(account, SecretStr("**********"))
    handle = await segundo.submit(sign_in, account, SecretStr(PASSWORD), token=PASSWORD, login=login)
    await handle.result()
    ((given, password, token, back),) = GIVEN
    assert (given, given.note, given.model_fields_set) == (account, "private", account.model_fields_set)
    assert (password.get_secret_value(), token) == (PASSWORD, PASSWORD)
    assert back == login
    assert back.pin.get_secret_value() == "**********"


async def test_secrets_are_refused_by_tasks_that_are_not_secret(segundo: Segundo) -> None:
    with pytest.raises(ArgumentError, match=r"@task\(secret=True\)"):
        await segundo.submit(not_secret, SecretStr(PASSWORD))


@task
async def not_secret(password: SecretStr) -> None: ...


# What is wiped


async def test_what_is_not_kept_is_wiped_by_success_with_and_without_a_result(segundo: Segundo) -> None:
    assert await (await segundo.submit(forgets, "event")).result() == "EVENT"
    await (await segundo.submit(forgets_and_returns_nothing, "event")).result()
    assert [(row["state"], row["arguments"]) for row in records()] == [("succeeded", None)] * 2


async def test_what_is_not_kept_stays_until_the_last_attempt_and_goes_with_it(segundo: Segundo) -> None:
    handle = await segundo.submit(forgets_and_fails, "event")
    with pytest.raises(TaskFailed, match="ValueError: no"):
        await handle.result()
    (record,) = records()
    assert (record["failures"], record["arguments"], record["reason"]) == (2, None, "ValueError")


async def test_what_is_not_kept_is_wiped_by_a_cancel_of_it_or_of_what_it_waits_for_and_for_a_duplicate(
    segundo: Segundo,
) -> None:
    first = await segundo.submit(forgets.options(delay=3600, key="one"), "event")
    await segundo.submit(forgets.options(key="one"), "event")
    await segundo.submit(forgets.options(after=first), "event")
    assert [row["arguments"] is None for row in records()] == [False, True, False]
    await segundo.ledger.cancel(first.record.id)
    await segundo.submit(forgets.options(after=first), "event")
    assert {(row["state"], row["arguments"]) for row in records()} == {("cancelled", None)}
    reasons = {row["reason"] for row in records()}
    assert reasons == {"Cancelled", "Duplicate", "PredecessorFailed"}


async def test_what_is_carried_goes_with_the_arguments() -> None:
    from contextvars import ContextVar

    tenant: ContextVar[str] = ContextVar("tenant")
    app = FastAPI()
    seg = Segundo(app, carry={"tenant": tenant})
    tenant.set("acme")
    async with lifespan(app):
        await (await seg.submit(forgets, "event")).result()
        await (await seg.submit(keeps_no_result, "event")).result()
    assert [row["carried"] for row in records()] == [None, '{"tenant":"acme"}']


async def test_what_was_wiped_cannot_be_retried_by_hand(segundo: Segundo) -> None:
    handle = await segundo.submit(forgets, "event")
    await handle.result()
    record = await segundo.find(str(handle.id))
    assert record is not None
    assert (record.wiped, record.secret) == (True, False)
    with pytest.raises(NotAllowed, match="wiped when it ended"):
        again(record)


async def test_a_result_that_is_not_kept_is_none_for_who_waits_and_the_arguments_stay(
    segundo: Segundo,
) -> None:
    assert await (await segundo.submit(keeps_no_result, "event")).result() is None
    (record,) = records()
    assert (record["arguments"], record["result"]) == ('{"event":"event"}', None)


# What is hidden


def reveals() -> Callable[..., Any]:
    async def endpoint(tasks: BackgroundTasks) -> Response:
        call = tasks.add_task(sign_in.options(delay=3600), account(), SecretStr(PASSWORD), token=PASSWORD)
        return tasks.accepted(call)

    return endpoint


def account() -> Account:
    return Account(name="ada", password=SecretStr(PASSWORD))


async def test_a_secret_is_shown_to_no_reader_nor_in_the_202_nor_by_find_nor_by_repr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = FastAPI()
    seg = Segundo(app, status=APIRouter(prefix="/tasks", dependencies=[Depends(lambda: None)]))
    app.post("/")(reveals())
    async with running(app) as client:
        accepted = await client.post("/")
        shown = await client.get(accepted.headers["location"])
        (row,) = records()
        assert PASSWORD in row["arguments"]
        record = await seg.find(row["id"])
        (raw,) = await seg.ledger.select(ids=[row["id"]])
        printed = [CliRunner().invoke(commands, words) for words in (["show", row["id"]], ["ls", "--json"])]
    for answer in (accepted.json(), shown.json()):
        assert (answer["secret"], answer["wiped"], answer["arguments"]) == (True, False, None)
    assert record is not None
    assert record.arguments is None
    assert [result.exit_code for result in printed] == [0, 0]
    assert "hidden: the task is secret" in printed[0].output
    seen = [accepted.text, shown.text, repr(record), repr(raw), *(result.output for result in printed)]
    assert [text for text in seen if PASSWORD in text] == []
    assert "<secret>" in repr(raw)


async def test_the_command_line_says_what_was_wiped(segundo: Segundo) -> None:
    handle = await segundo.submit(forgets, "event")
    await handle.result()
    shown = CliRunner().invoke(commands, ["show", str(handle.id)])
    assert "wiped when it ended" in shown.output
    retried = CliRunner().invoke(commands, ["retry", str(handle.id)])
    assert retried.exit_code != 0


def telltale(value: str) -> str:
    raise ValueError(f"{value} is no code")


@task(secret=True)
async def checked(
    code: Annotated[str, AfterValidator(telltale)] = "", headers: dict[str, int] | None = None
) -> None: ...


@pytest.mark.parametrize(
    "arguments", [{"code": PASSWORD}, {"headers": {PASSWORD: "x"}}, {"headers": {PASSWORD: object()}}]
)
async def test_the_error_on_the_callers_line_names_the_argument_and_quotes_nothing(
    segundo: Segundo, arguments: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ArgumentError) as raised:
        await segundo.submit(checked, **arguments)
    logging.getLogger().error("as a server logs it", exc_info=raised.value)
    assert f"argument {next(iter(arguments))!r} cannot be recorded" in str(raised.value)
    said = caplog.text
    error: BaseException | None = raised.value
    while error is not None:
        said += str(error)
        error = error.__cause__ or error.__context__
    assert PASSWORD not in said


async def test_of_a_secret_tasks_failure_only_what_it_is_and_where_is_known(
    segundo: Segundo, caplog: pytest.LogCaptureFixture
) -> None:
    handle = await segundo.submit(fails_with, SecretStr(PASSWORD))
    with pytest.raises(TaskFailed, match="hidden") as raised:
        await handle.result()
    (record,) = records()
    error = json.loads(record["error"])
    assert (record["arguments"], record["reason"], error["type"]) == (None, "ValueError", "ValueError")
    assert "in fails_with\n" in error["traceback"]
    assert "raise problem from error" in error["traceback"]
    assert [cause["type"] for cause in error["causes"]] == ["OSError"]
    assert PASSWORD not in f"{record} {raised.value} {raised.value.error} {caplog.text}"


async def test_arguments_that_do_not_fit_a_secret_task_any_more_are_not_quoted(
    segundo: Segundo, caplog: pytest.LogCaptureFixture
) -> None:
    handle = await segundo.submit(sign_in.options(delay=0.5), account(), SecretStr(PASSWORD))
    tamper(str(handle.id), json.dumps({"account": PASSWORD, "password": 1}))
    with pytest.raises(TaskFailed) as raised:
        await handle.result()
    (record,) = records()
    assert (record["reason"], record["arguments"]) == ("PayloadError", None)
    assert PASSWORD not in f"{record} {raised.value.error} {caplog.text}"


def tamper(id: str, arguments: str) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(LEDGER)) as connection, connection:
        connection.execute("UPDATE records SET arguments = ? WHERE id = ?", (arguments, id))


# A real run


MAIN = """
    from fastapi import FastAPI
    from pydantic import SecretStr
    from segundo import BackgroundTasks, Segundo, task

    app = FastAPI()
    Segundo(app)

    @task(secret=True)
    async def right(password: SecretStr, more: str) -> int:
        return len(password.get_secret_value())

    @task(secret=True)
    def wrong(password: SecretStr, more: str) -> None:
        raise ValueError(password.get_secret_value() + more)

    @task(secret=True)
    async def refused(password: int) -> None: ...

    @app.post("/{function}/{password}")
    async def add(function: str, tasks: BackgroundTasks, password: str) -> None:
        called = {"right": right, "wrong": wrong}[function]
        tasks.add_task(called, SecretStr(password), password * 300)

    @app.post("/refused")
    async def add_refused(tasks: BackgroundTasks) -> None:
        tasks.add_task(refused, {"hunt" "er2": "hunt" "er2"})
"""


def test_after_a_run_a_secret_is_in_none_of_its_files_and_logs(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(dedent(MAIN))
    options = ["--no-access-log"]  # the test passes its secret in the path
    with Server("main:app", cwd=tmp_path, options=options) as server, httpx.Client(trust_env=False) as client:
        for function in ("right", "wrong"):
            assert client.post(f"{server.url}/{function}/{PASSWORD}").status_code == 200
        assert client.post(f"{server.url}/refused").status_code == 500

        def states() -> set[str]:
            return {row["state"] for row in ledger_rows(tmp_path / "segundo.db")}

        wait_until(lambda: states() == {"succeeded", "failed"})
        server.stop()
        assert "wrong" in server.output()
        assert "ArgumentError" in server.output()
    held = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"segundo.db", server.log.name} <= held.keys()
    assert [name for name, content in held.items() if b"hunter2" in content and name != "main.py"] == []
