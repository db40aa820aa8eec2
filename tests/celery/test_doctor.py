"""`segundo doctor` beside real brokers and Celery workers."""

import json
import shutil
from pathlib import Path

import pytest
from redis import Redis as Client

from scripts.services import Redis, Service
from segundo.cli.backlog import Backlog, Waiting
from segundo.cli.finding import Finding, Level
from segundo.cli.surroundings import surroundings
from segundo.executors.celery.routes import Routes
from tests.celery.stage import STRANGER, CeleryWorker, Stage
from tests.cli.terminal import segundo
from tests.support import ROOT

pytestmark = pytest.mark.celery

OTHER_LISTS = """
from fastapi import FastAPI
from segundo import Segundo

celery = Segundo(FastAPI()).celery
celery.conf.broker_transport_options = {"priority_steps": [0, 3, 6, 9]}
"""


def found(broker: Service, *waiting: Waiting, longest: float = 0.0) -> dict[str, Finding]:
    backlog = Backlog()
    backlog.waiting = list(waiting)
    backlog.queues = {each.queue for each in waiting}
    backlog.longest = longest
    around = surroundings(Routes({}, broker.url()), backlog, in_a_file=True, app=True)
    return {each.subject: each for each in around}


def test_the_broker_its_workers_and_a_queue_that_none_takes(stage: Stage) -> None:
    before = found(stage.broker, Waiting("emails", 2))
    assert before["broker"].level is Level.OK
    assert before["workers"].level is Level.WARNING
    assert "2 records" in before["queue"].text
    with CeleryWorker():
        after = found(stage.broker, Waiting("emails", 2), Waiting("pages", 1))
        assert after["workers"].level is Level.OK
        assert after["queue"].text.startswith("pages: 1 record")
        assert "-Q pages" in after["queue"].text
        late = Waiting("emails", 2, 120.0)
        assert "nobody publishes it" in found(stage.broker, late)["queue"].text
        assert "are busy" in found(stage.broker, late._replace(published=True))["queue"].text
        misplaced = found(stage.broker, Waiting("pages", 1))["worker"]
        assert misplaced.level is Level.WARNING
        assert misplaced.text.endswith("takes default, emails, and no record is there: -Q pages")


def test_a_worker_that_throws_our_messages_away_is_a_problem(stage: Stage) -> None:
    Path("stranger.py").write_text(STRANGER)
    # By a name of its own: RabbitMQ keeps the mailbox of one of ours for a while.
    with CeleryWorker("-n", "stranger@%h", target="stranger:celery"):
        there = found(stage.broker, Waiting("emails", 1))
        assert there["worker"].level is Level.PROBLEM
        assert "takes emails, and throws the messages about records away" in there["worker"].text
        assert "no Celery worker that answers takes this queue" in there["queue"].text
        elsewhere = found(stage.broker, Waiting("pages", 1))
    assert "worker" not in elsewhere  # what it takes is its own affair


def test_a_worker_that_reads_other_lists_of_redis_than_the_app_writes_to_is_a_problem(redis: Redis) -> None:
    Path("lists.py").write_text(OTHER_LISTS)
    with CeleryWorker(target="lists:celery", env={"SEGUNDO_BROKER": redis.url()}):
        there = found(redis, Waiting("emails", 1))
    assert there["worker"].level is Level.PROBLEM
    assert "reads other lists of Redis than the app writes to" in there["worker"].text


def test_messages_that_come_again_are_no_warning(redis: Redis) -> None:
    assert found(redis)["messages"].text.endswith("comes again after 1 d (visibility_timeout)")
    level, _, text = found(redis, longest=200_000.0)["messages"]
    assert level is Level.OK
    assert "attempts here may last 2 d" in text
    assert "Nothing runs twice" in text


def test_an_app_that_is_named_has_its_own_celery_apps_looked_at(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its broker is in no variable, and its workers' settings are the user's own."""
    monkeypatch.setenv("BROKER", redis.url())
    shutil.copyfile(ROOT / "tests" / "celery" / "shop.py", "main.py")
    before = said("main:app")
    assert any("worker_prefetch_multiplier" in text for text in before["Celery"])
    with CeleryWorker(queues=["celery"]) as worker:
        after = said("main:app")
        assert "worker_prefetch_multiplier" in worker.output()  # it warns of the same
    assert any("worker_prefetch_multiplier" in text and "celery@" in text for text in after["Celery"])
    assert "the app's own processes run the records" in said()["broker"][0]


def said(*arguments: str) -> dict[str, list[str]]:
    """What it says at a terminal, by subject."""
    by_subject: dict[str, list[str]] = {}
    for line in segundo("doctor", *arguments, "--json").out.splitlines():
        finding = json.loads(line)
        by_subject.setdefault(finding["subject"], []).append(finding["text"])
    return by_subject


def test_a_redis_that_throws_messages_away_is_named(redis: Redis) -> None:
    with Client.from_url(redis.url()) as client:
        assert found(redis)["memory"].level is Level.OK
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert "noeviction" in found(redis)["memory"].text
        assert found(redis)["memory"].level is Level.WARNING
