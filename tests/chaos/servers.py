"""The project's servers on hosts of their own: they listen on the host's address, too."""

from pathlib import Path
from typing import Self

from scripts import services
from scripts.services import Service
from tests.chaos.hosts import NETWORK, Host

EVERYWHERE = "0.0.0.0"  # in a namespace that nobody else is in


class Postgres(services.Postgres):
    """No crash of the machine is tried here, so nothing waits for the disk."""

    def __init__(self, host: Host, folder: Path) -> None:
        options = (f"listen_addresses={EVERYWHERE}", "fsync=off", "full_page_writes=off")
        super().__init__(folder, 5432, options)
        self.host = host

    def prepare(self) -> None:
        super().prepare()
        with (self.folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {NETWORK}.0/24 trust\n")

    def url(self) -> str:
        return f"postgresql://postgres@{self.host.address}:{self.port}/postgres"

    def start(self) -> Self:
        with self.host.inside():
            return super().start()


class Redis(services.Redis):
    def __init__(self, host: Host, folder: Path) -> None:
        super().__init__(folder, 6379, ("--bind", EVERYWHERE, "--protected-mode", "no"))
        self.host = host

    def url(self) -> str:
        return f"redis://{self.host.address}:{self.port}/0"

    def start(self) -> Self:
        with self.host.inside():
            return super().start()


class RabbitMQ(services.RabbitMQ):
    def __init__(self, host: Host, folder: Path) -> None:
        super().__init__(folder, 5672, ("loopback_users = none",))
        self.host = host

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "RABBITMQ_NODE_IP_ADDRESS": EVERYWHERE}

    def url(self) -> str:
        return f"amqp://guest:guest@{self.host.address}:{self.port}//"

    def start(self) -> Self:
        with self.host.inside():
            return super().start()

    def stop(self, *how: int) -> None:
        with self.host.inside():
            super().stop(*how)  # type: ignore[arg-type]  # signals


BROKERS: dict[str, type[Redis] | type[RabbitMQ]] = {"redis": Redis, "rabbitmq": RabbitMQ}
Broker = Service
