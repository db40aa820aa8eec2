"""The same app, moved to PostgreSQL and Celery by two variables of the environment."""

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from scripts.services import Service
from segundo.ledger.postgres import PostgresLedger
from segundo.record import Record
from tests.celery.stage import CeleryWorker, Stage
from tests.support import ROOT, wait_until

PATIENCE = 60


def select(url: str) -> dict[str, Record]:
    async def read() -> Sequence[Record]:
        ledger = PostgresLedger(url)
        await ledger.open()
        try:
            return await ledger.select()
        finally:
            await ledger.close()

    return {record.id: record for record in asyncio.run(read())}


@pytest.fixture
def stage(broker: Service, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("SEGUNDO_BROKER", broker.url())
    monkeypatch.setenv("SEGUNDO_LEDGER", url)
    monkeypatch.setenv("SEGUNDO_APP", "main:app")
    monkeypatch.setenv("LEASE", "6")
    shutil.copyfile(ROOT / "tests" / "celery" / "app.py", "main.py")
    stage = Stage(broker)
    with stage.server:
        yield stage


@pytest.mark.celery
def test_the_same_app_runs_on_postgresql_and_celery_by_the_environment(stage: Stage, url: str) -> None:
    with CeleryWorker("-c", "2", target="segundo.celery"):
        (twice,), (injected,) = stage.add("twice", "mail"), stage.add("injected", "it")
        wait_until(lambda: all(record.state.terminal for record in select(url).values()), PATIENCE, every=0.2)
        records = select(url)
    assert records[twice].result == '"mail sent"'
    assert records[injected].result == '"it by a connection"'
    assert {record.state for record in records.values()} == {"succeeded"}
    assert len(records) == 3  # the child too


@pytest.mark.celery
def test_a_pool_process_that_is_killed_takes_its_own_record_along_and_is_replaced(
    stage: Stage, url: str
) -> None:
    with CeleryWorker("-c", "3", target="segundo.celery"):
        (plain,), (declared,), (beside,) = (
            stage.add(*call) for call in (("waits", "plain"), ("until", "declared"), ("until", "beside"))
        )
        first = [begun(stage, name) for name in NAMES]
        for process in first[:2]:
            os.kill(process, signal.SIGKILL)
        (_, again) = wait_until(lambda: two(stage.who("begins", "declared")), PATIENCE)
        assert again not in first
        for name in ("declared", "beside"):
            Path(name).touch()
        wait_until(lambda: all(record.state.terminal for record in select(url).values()), PATIENCE, every=0.2)
        records = select(url)
    told = [
        (each.state, each.reason, each.crashes)
        for each in map(records.__getitem__, (plain, declared, beside))
    ]
    assert told == [("failed", "WorkerLost", 1), ("succeeded", None, 1), ("succeeded", None, 0)]
    assert [stage.said("begins", name) for name in NAMES] == [1, 2, 1]
    assert stage.who("ends", "beside") == [first[2]]


NAMES = ("plain", "declared", "beside")


def begun(stage: Stage, name: str) -> int:
    return wait_until(lambda: stage.who("begins", name), PATIENCE)[0]


def two(processes: list[int]) -> list[int] | None:
    return processes if len(processes) == 2 else None
