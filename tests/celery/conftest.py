"""A broker of each kind, and the app beside it."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from amqp.exceptions import NotFound
from kombu import Connection

from scripts.services import RabbitMQ, Redis, Service
from tests.celery.stage import QUEUES, Stage, a_broker
from tests.support import ROOT

KINDS: dict[str, type[Redis] | type[RabbitMQ]] = {"redis": Redis, "rabbitmq": RabbitMQ}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(item.path).parent == Path(__file__).parent and "stage" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.celery)


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[Service]:
    with a_broker(RabbitMQ) as service:
        yield service


@pytest.fixture
def redis() -> Iterator[Service]:
    with a_broker(Redis) as service:
        yield service


@pytest.fixture(params=KINDS)
def broker(request: pytest.FixtureRequest) -> Service:
    """A running broker with empty queues. RabbitMQ, which is slow to start, is one for the whole run."""
    service: Service = request.getfixturevalue(request.param)
    if service.pid is None:
        service.start()
    if request.param == "rabbitmq":
        empty(service)
    return service


def empty(service: Service) -> None:
    with Connection(service.url()) as connection:
        for queue in (*QUEUES, "celery"):
            with suppress(NotFound), connection.channel() as channel:
                deleting: Any = channel
                deleting.queue_delete(queue)


@pytest.fixture
def stage(broker: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """The app, served, with its calls going to the broker."""
    monkeypatch.setenv("SEGUNDO_BROKER", broker.url())
    shutil.copyfile(ROOT / "tests" / "celery" / "app.py", "main.py")
    stage = Stage(broker)
    with stage.server:
        yield stage
