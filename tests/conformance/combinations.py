"""Where the suite is run, and what a combination of ledger and executor cannot do, by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from scripts.services import RabbitMQ, Redis

Broker = type[RabbitMQ] | type[Redis]


class Capability(StrEnum):
    """What a combination may lack. A test that meets it asks for what there is instead, never for nothing.

    The value is the row's name in the table of docs/celery.md.
    """

    FROZEN = "a process that is frozen for more than 30 s keeps what it runs"


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

    @property
    def takeover(self) -> float:
        """Seconds until what a killed process ran is taken over, as the table says."""
        return 5.0 if self.ledger == "sqlite" else 35.0

    def can(self, capability: Capability) -> bool:
        return capability not in self.lacks


LEASES = {
    Capability.FROZEN: "its lease runs out, and another takes over what it ran",
}

COMBINATIONS = (
    Combination("SQLite, embedded", "sqlite", None, "b"),
    Combination("PostgreSQL, embedded", "postgres", None, "b", lacks=LEASES),
    Combination("PostgreSQL, RabbitMQ", "postgres", RabbitMQ, "a", lacks=LEASES),
    Combination("PostgreSQL, Redis", "postgres", Redis, "b", lacks=LEASES),
    Combination("SQLite, Redis", "sqlite", Redis, "a", short=True),
)
