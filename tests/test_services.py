"""The project's own servers: on a port of their own, stopped by their pid, their data kept between."""

import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.ports import free_port, is_free
from scripts.services import SERVICES, RabbitMQ, Service

# RabbitMQ takes ten seconds.
SLOW = {"rabbitmq": pytest.mark.celery}


@pytest.fixture(params=[pytest.param(name, marks=SLOW.get(name, ())) for name in SERVICES])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    kind = SERVICES[request.param]
    if kind.program() is None:
        pytest.skip(f"{kind.name} is not installed: `make services`")
    folder = Path(tempfile.mkdtemp(prefix="segundo-test-"))
    folder.chmod(0o755)  # its user is another than root
    service = kind(folder / "server", free_port(kind.ports))
    yield service
    service.remove()
    shutil.rmtree(folder)


def test_a_server_is_started_stopped_by_its_pid_and_started_again_on_its_data(service: Service) -> None:
    service.start()
    assert service.pid is not None
    assert type(service)(service.folder, service.port).pid == service.pid  # another process finds it, too
    service.stop()
    assert service.pid is None
    held = sorted(path.name for path in service.folder.iterdir())
    service.start()
    assert service.ready()
    assert set(held) <= {path.name for path in service.folder.iterdir()}


def test_a_free_port_has_as_much_room_as_a_server_takes() -> None:
    port = free_port(RabbitMQ.ports)
    with socket.create_server(("127.0.0.1", port + 2)):
        assert not is_free(port, RabbitMQ.ports)
    assert is_free(port, RabbitMQ.ports)
