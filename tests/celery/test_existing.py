"""Beside a Celery app that was there before: its tasks recorded and followed, ours on its workers too."""

import shutil
from collections.abc import Iterator

import httpx
import pytest

from scripts.services import Service
from tests.celery.stage import CeleryWorker, Stage
from tests.support import ROOT, wait_until

PATIENCE = 30


@pytest.fixture
def stage(broker: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("BROKER", broker.url())
    shutil.copyfile(ROOT / "tests" / "celery" / "shop.py", "main.py")
    stage = Stage(broker)
    with stage.server:
        yield stage


def worker() -> CeleryWorker:
    return CeleryWorker("-c", "2", queues=["celery"])


def test_a_celery_task_given_to_add_task_is_recorded_and_runs_on_its_workers(stage: Stage) -> None:
    (id,) = stage.add("invoice", "7")
    wait_until(lambda: stage.states() == {"queued": 1})
    with worker():
        wait_until(stage.ended, PATIENCE)
    assert (stage.record(id)["task"], stage.record(id)["result"]) == ("celery:main.invoice", '"invoice 7"')
    assert stage.who("invoice", 7) != [stage.server.pid]


def test_the_retries_of_a_celery_task_wait_in_the_ledger(stage: Stage) -> None:
    (stubborn,), (hopeless,) = stage.add("stubborn", "it"), stage.add("hopeless", "it")
    with worker():
        wait_until(stage.ended, PATIENCE)
    assert stage.record(stubborn)["result"] == '"it after 2"'
    assert [stage.said("stubborn", "it", retries) for retries in range(4)] == [1, 1, 1, 0]
    assert (stage.record(hopeless)["state"], stage.record(hopeless)["failures"]) == ("failed", 2)
    assert stage.error(hopeless) == "ConnectionError"


def test_one_queue_is_celerys_and_the_rest_is_the_apps_own(stage: Stage) -> None:
    (here,) = stage.add("pages", "here")
    wait_until(lambda: stage.ended([here]), PATIENCE)
    (there,) = stage.add("on_celery", "there")
    with worker():
        wait_until(stage.ended, PATIENCE)
    assert stage.who("pages", "here") == [stage.server.pid]
    assert stage.who("on_celery", "there", 1) not in ([], [stage.server.pid])
    assert stage.record(there)["result"] == '"there"'


def test_a_celery_task_of_a_queue_that_goes_nowhere_is_refused_on_the_callers_line(stage: Stage) -> None:
    answer = httpx.post(f"{stage.server.url}/unrouted/it")
    assert answer.status_code == 500
    wait_until(lambda: "add queues={'elsewhere': …}" in stage.server.output())
    assert stage.records() == {}
