"""What the same app can run on: a file and its own process, or servers and Celery workers."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Self

from scripts.services import Postgres, RabbitMQ, Redis, Service


class Target(Enum):
    """What is killed under load, and started again."""

    APP = "the app"
    WORKER = "a Celery worker"
    BROKER = "the broker"
    LEDGER = "the ledger's server"


@dataclass(frozen=True)
class Engine:
    """`ledger`, `broker`: their servers; without one, a SQLite file, and the app runs its records itself.

    `targets`: what is killed, in this order and over again. `pause`: seconds between two requests of a
    client, on average: the load is to outlast what is done to it. `deadline`: seconds until all has ended.
    """

    name: str
    says: str
    targets: Sequence[Target]
    ledger: type[Service] | None = None
    broker: type[Service] | None = None
    kills: int = 2
    workers: int = 0
    pause: float = 0.0
    deadline: float = 60.0

    @property
    def services(self) -> Sequence[type[Service]]:
        return [service for service in (self.ledger, self.broker) if service]

    @classmethod
    def named(cls, name: str) -> Self:
        """Raises ValueError for a name that there is not."""
        if name not in ENGINES:
            raise ValueError(f"ENGINE={name}: there is none of that name. Say one of: {', '.join(ENGINES)}")
        return ENGINES[name]  # type: ignore[return-value]


def on_celery(name: str, broker: type[Service], says: str) -> Engine:
    return Engine(
        name=name,
        says=f"PostgreSQL, {says}, two Celery workers",
        targets=(Target.WORKER, Target.BROKER, Target.APP, Target.WORKER),
        ledger=Postgres,
        broker=broker,
        kills=4,
        workers=2,
        pause=0.3,
        deadline=120.0,
    )


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("sqlite", "a SQLite file, and the app runs its own records", (Target.APP,)),
        Engine(
            name="postgres",
            says="PostgreSQL, and the app runs its own records",
            targets=(Target.APP, Target.LEDGER, Target.APP),
            ledger=Postgres,
            kills=3,
            pause=0.15,
            deadline=120.0,
        ),
        on_celery("redis", Redis, "Redis that keeps nothing on its disk"),
        on_celery("rabbitmq", RabbitMQ, "RabbitMQ"),
    )
}
