"""The same app, moved to PostgreSQL and Celery by two variables of the environment."""

import asyncio
import shutil
from collections.abc import Sequence

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


@pytest.mark.celery
def test_the_same_app_runs_on_postgresql_and_celery_by_the_environment(
    broker: Service, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGUNDO_BROKER", broker.url())
    monkeypatch.setenv("SEGUNDO_LEDGER", url)
    monkeypatch.setenv("SEGUNDO_APP", "main:app")
    shutil.copyfile(ROOT / "tests" / "celery" / "app.py", "main.py")
    stage = Stage(broker)
    with stage.server, CeleryWorker("-c", "2", target="segundo.celery"):
        (twice,), (injected,) = stage.add("twice", "mail"), stage.add("injected", "it")
        wait_until(lambda: all(record.state.terminal for record in select(url).values()), PATIENCE, every=0.2)
        records = select(url)
    assert records[twice].result == '"mail sent"'
    assert records[injected].result == '"it by a connection"'
    assert {record.state for record in records.values()} == {"succeeded"}
    assert len(records) == 3  # the child too
