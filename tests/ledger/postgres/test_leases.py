"""A process lives while its lease runs: blocked it keeps what it has, frozen past it, it has lost all."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from segundo.ledger.postgres import PostgresLedger
from segundo.record import Record, State
from tests.ledger.actors import Actor, a_process
from tests.ledger.suite import PostgresStore, call, settlement
from tests.postgres import Schemas
from tests.support import wait_until, wait_until_async

LEASE = 3.0


@dataclass(frozen=True)
class Brief(PostgresStore):
    """Whose processes live for three seconds from their last word."""

    def ledger(self, clock: object) -> PostgresLedger:
        return PostgresLedger(self.url, lease=LEASE)


@pytest.fixture
def worker(url: str) -> Iterator[Actor]:
    """A process on the ledger; while it waits for orders, its event loop is blocked."""
    with a_process() as actor:
        actor.meet(Brief(url), "worker")
        yield actor


def ran_by(worker: Actor) -> Record:
    worker.do("record", [call(crash_limit=1)], owner="worker")
    (running,) = worker.do("claim", "worker", limit=1)
    assert isinstance(running, Record)
    return running


async def test_a_process_whose_event_loop_is_blocked_is_not_taken_for_dead(
    schemas: Schemas, url: str, worker: Actor
) -> None:
    running = ran_by(worker)
    rescuer = PostgresLedger(url, lease=LEASE, patience=0)
    await rescuer.open()
    ((ends,),) = schemas.rows(url, "SELECT lease_until FROM workers WHERE id = 'worker'")
    # Its first lease, and another, have run out by then.
    wait_until(
        lambda: schemas.rows(
            url, "SELECT 1 WHERE clock_timestamp() > %s + make_interval(secs => %s)", (ends, LEASE)
        ),
        20,
    )
    assert await rescuer.rescue() == []
    assert worker.do("settle", [settlement(running)]) == [True]
    await rescuer.close()


async def test_a_process_that_was_frozen_past_its_lease_settles_nothing(url: str, worker: Actor) -> None:
    running = ran_by(worker)
    rescuer = PostgresLedger(url, lease=LEASE)
    await rescuer.open()
    worker.pause()
    (rescued,) = await wait_until_async(rescuer.rescue, 20, every=0.1)
    assert (rescued.id, rescued.state, rescued.crashes) == (running.id, State.QUEUED, 1)
    await rescuer.join("me")
    (again,) = await rescuer.claim("me", limit=1)
    worker.resume()
    assert worker.do("settle", [settlement(running)]) == [False]
    beat = worker.do("beat", "worker", running=[running.id])
    assert beat.lost == (running.id,)
    assert await rescuer.settle([settlement(again)]) == [True]
    await rescuer.close(dead=True)
