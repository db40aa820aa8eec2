"""`segundo doctor` beside real brokers and Celery workers."""

import pytest
from redis import Redis as Client

from scripts.services import Redis, Service
from segundo.cli.finding import Finding, Level
from segundo.cli.surroundings import surroundings
from tests.celery.stage import CeleryWorker, Stage

pytestmark = pytest.mark.celery


def found(broker: Service, **waiting: int) -> dict[str, Finding]:
    return {each.subject: each for each in surroundings(broker.url(), waiting, in_a_file=True)}


def test_the_broker_its_workers_and_a_queue_that_none_takes(stage: Stage) -> None:
    before = found(stage.broker, emails=2)
    assert before["broker"].level is Level.OK
    assert before["workers"].level is Level.WARNING
    assert "2 records" in before["queue"].text
    with CeleryWorker():
        after = found(stage.broker, emails=2, pages=1)
    assert after["workers"].level is Level.OK
    assert after["queue"].text.startswith("pages: 1 record")


def test_a_redis_that_throws_messages_away_is_named(redis: Redis) -> None:
    with Client.from_url(redis.url()) as client:
        assert found(redis)["memory"].level is Level.OK
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert "noeviction" in found(redis)["memory"].text
        assert found(redis)["memory"].level is Level.WARNING
