"""Where each setting comes from, and what is said of one that cannot be."""

import logging
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import FastAPI

from segundo import BackgroundTasks, Segundo, task
from segundo.errors import ConfigurationError
from tests.support import wait_until_async
from tests.web.apps import ended, records, running, states
from tests.web.tasks import declared, events, note


def test_without_a_word_each_setting_has_its_default(tmp_path: Path) -> None:
    settings = Segundo(FastAPI()).settings
    assert settings.ledger == str(tmp_path / "segundo.db")
    assert (settings.concurrency, settings.durability) == (64, "full")
    assert (settings.record_timeout, settings.grace, settings.retention) == (5, 30, 30 * 86400)
    assert (settings.freeze, settings.window) == (True, 1000)
    assert set(settings.sources.values()) == {"default"}


def test_the_environment_comes_before_the_default_and_an_argument_before_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEGUNDO_CONCURRENCY", "7")
    monkeypatch.setenv("SEGUNDO_GRACE", "2m")
    settings = Segundo(FastAPI(), concurrency=3).settings
    assert (settings.concurrency, settings.sources["concurrency"]) == (3, "argument")
    assert (settings.grace, settings.sources["grace"]) == (120, "SEGUNDO_GRACE")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("concurrency", "0", 0),
        ("window", "20000", 20_000),
        ("durability", "normal", "normal"),
        ("record_timeout", "250", 250),
        ("record_timeout", "1.5s", 1.5),
        ("grace", "0", 0),
        ("retention", "12h", 43200),
        ("retention", "forever", None),
        ("freeze", "1", True),
        ("freeze", "off", False),
        ("ledger", "memory://", "memory://"),
        ("ledger", "/var/lib/app/tasks.db", "/var/lib/app/tasks.db"),
        ("ledger", "sqlite:////var/lib/app/tasks.db", "/var/lib/app/tasks.db"),
    ],
)
def test_every_setting_can_be_given_by_the_environment(
    name: str, text: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"SEGUNDO_{name.upper()}", text)
    assert getattr(Segundo(FastAPI()).settings, name) == value


@pytest.mark.parametrize("ledger", ["var/tasks.db", Path("var/tasks.db"), "sqlite:///var/tasks.db"])
def test_a_relative_ledger_is_below_the_working_directory(ledger: Any, tmp_path: Path) -> None:
    assert Segundo(FastAPI(), ledger=ledger).settings.ledger == str(tmp_path / "var" / "tasks.db")


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUNDO_CONCURRENCY", "")
    assert Segundo(FastAPI()).settings.sources["concurrency"] == "default"


def test_a_retention_may_be_a_timedelta_or_seconds() -> None:
    assert Segundo(FastAPI(), retention=timedelta(days=2)).settings.retention == 172800
    assert Segundo(FastAPI(), retention=60).settings.retention == 60


BAD = [
    ("ledger", "mysql://host/db"),
    ("ledger", "memory://shared"),
    ("concurrency", "-1"),
    ("concurrency", "many"),
    ("concurrency", "2.5"),
    ("window", "0"),
    ("window", "wide"),
    ("durability", "sometimes"),
    ("record_timeout", "0"),
    ("record_timeout", "soon"),
    ("grace", "-5"),
    ("retention", "0d"),
    ("retention", "a month"),
    ("freeze", "perhaps"),
]


@pytest.mark.parametrize(("name", "text"), BAD)
def test_a_value_that_cannot_be_is_refused_and_its_variable_named(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"SEGUNDO_{name.upper()}", text)
    with pytest.raises(ConfigurationError) as refusal:
        Segundo(FastAPI())
    assert f"SEGUNDO_{name.upper()}" in str(refusal.value)
    assert repr(text) in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [*BAD, ("concurrency", 2.5), ("concurrency", None.__class__), ("record_timeout", 0), ("ledger", 7)],
)
def test_an_argument_that_cannot_be_is_refused_and_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"argument: {name} cannot be"):
        Segundo(FastAPI(), **{name: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_time_that_no_clock_reaches_is_refused(value: float) -> None:
    for name in ("record_timeout", "grace", "retention"):
        with pytest.raises(ConfigurationError, match=name):
            Segundo(FastAPI(), **{name: value})  # type: ignore[arg-type]  # mypy takes each for any of them


async def test_the_start_logs_each_setting_with_its_source_and_where_the_ledger_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, "segundo")
    monkeypatch.setenv("SEGUNDO_GRACE", "9")
    app = FastAPI()
    Segundo(app, concurrency=3)
    async with running(app):
        pass
    assert "setting concurrency = 3 (argument)" in caplog.text
    assert "setting grace = 9.0 (SEGUNDO_GRACE)" in caplog.text
    assert f"ledger {tmp_path / 'segundo.db'}" in caplog.text


def app_that_adds(**settings: Any) -> FastAPI:
    app = FastAPI()
    Segundo(app, **settings)

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(declared, "task")
        tasks.add_task(note, "plain")

    return app


async def test_with_concurrency_0_a_process_only_records_and_another_runs() -> None:
    async with running(app_that_adds(concurrency=0)) as client:
        await client.post("/")
        await wait_until_async(lambda: states() == ["queued", "queued"])
    assert sorted(states()) == ["queued", "queued"]
    assert events() == []
    async with running(app_that_adds()):
        await ended(2)
    assert sorted(events()) == ["plain", "task"]


async def test_concurrency_is_how_many_records_run_at_once() -> None:
    app = FastAPI()
    Segundo(app, concurrency=2)
    most.clear()

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        for _ in range(20):
            tasks.add_task(counts)

    async with running(app) as client:
        await client.post("/")
        await ended(20)
    assert max(most) == 2


most: list[int] = []
now: list[None] = []


@task
async def counts() -> None:
    now.append(None)
    most.append(len(now))
    for _ in range(3):
        await anyio.lowlevel.checkpoint()
    now.pop()


async def test_a_ledger_in_memory_leaves_no_file_and_runs_calls_before_the_answer_is_over() -> None:
    async with running(app_that_adds(ledger="memory://")) as client:
        await client.post("/")
        assert sorted(events()) == ["plain", "task"]
    assert records() == []
    assert not list(Path.cwd().glob("*.db*"))


@pytest.mark.parametrize("app", [object(), None, "main:app"])
def test_a_segundo_takes_an_app_and_nothing_else(app: Any) -> None:
    with pytest.raises(ConfigurationError, match="takes a FastAPI app"):
        Segundo(app)


async def test_an_app_that_runs_already_gets_none() -> None:
    app = FastAPI()
    async with running(app):
        with pytest.raises(ConfigurationError, match="has started already"):
            Segundo(app)


def test_an_app_has_one_segundo() -> None:
    app = FastAPI()
    Segundo(app)
    with pytest.raises(ConfigurationError, match="already has a Segundo"):
        Segundo(app)


def test_modules_are_a_list_and_one_name_is_none() -> None:
    with pytest.raises(ConfigurationError, match=r"modules=\['app'\]"):
        Segundo(FastAPI(), modules="app")


WRONG: dict[str, Any] = {
    "modules=…": {"modules": 5},
    "queues=…": {"queues": ["emails"]},
    "carry=… names context variables": {"carry": ["tenant"]},
    "carry={'tenant': …} is a context variable": {"carry": {"tenant": "acme"}},
    "status=… is a prefix or an APIRouter": {"status": 5},
}


@pytest.mark.parametrize("says", WRONG)
def test_an_argument_of_another_kind_is_refused_with_the_right_one(says: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        Segundo(FastAPI(), **WRONG[says])
