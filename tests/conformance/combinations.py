"""Where the suite is run, and what a combination of ledger and executor cannot do, by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from scripts.services import RabbitMQ, Redis

Broker = type[RabbitMQ] | type[Redis]


class Capability(StrEnum):
    """What a combination may lack. Its test then asks for what there is instead, never for nothing.

    The value is the row's name in the table of docs/celery.md.
    """

    GRACE = "a stop puts back what runs after `grace`"


@dataclass(frozen=True, slots=True)
class Combination:
    """A ledger and an executor. `lane`: combinations of one lane are tried by one process, at the same time.

    `short`: only the tests that are marked so.
    """

    name: str
    ledger: str
    broker: Broker | None
    lane: str
    short: bool = False
    lacks: Mapping[Capability, str] = field(default_factory=dict[Capability, str])

    def can(self, capability: Capability) -> bool:
        return capability not in self.lacks


CELERY_WAITS = {
    Capability.GRACE: "Celery's warm shutdown waits for what runs, however long it takes",
}

COMBINATIONS = (
    Combination("SQLite, embedded", "sqlite", None, "b"),
    Combination("PostgreSQL, embedded", "postgres", None, "b"),
    Combination("PostgreSQL, RabbitMQ", "postgres", RabbitMQ, "a", lacks=CELERY_WAITS),
    Combination("PostgreSQL, Redis", "postgres", Redis, "b", lacks=CELERY_WAITS),
    Combination("SQLite, Redis", "sqlite", Redis, "a", short=True, lacks=CELERY_WAITS),
)
