"""A broker of each kind, and the app beside it."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from amqp.exceptions import NotFound
from kombu import Connection

from scripts.services import RabbitMQ, Redis, Service
from tests.celery.stage import QUEUES, Stage
from tests.support import ROOT, free_port

KINDS: dict[str, type[Redis] | type[RabbitMQ]] = {"redis": Redis, "rabbitmq": RabbitMQ}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(item.path).parent == Path(__file__).parent and "stage" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.celery)


def started(kind: type[Redis] | type[RabbitMQ]) -> Iterator[Service]:
    if kind.program() is None:
        pytest.skip(f"{kind.name} is not installed: `make services`")
    folder = Path(tempfile.mkdtemp(prefix="segundo-test-"))
    service = kind(folder / "server", free_port())
    service.start()
    yield service
    service.remove()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[Service]:
    yield from started(RabbitMQ)


@pytest.fixture
def redis() -> Iterator[Service]:
    yield from started(Redis)


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
