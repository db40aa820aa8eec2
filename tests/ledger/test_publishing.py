"""What is leased for messages to a broker: due, not claimed, once at a time, and no more than a window."""

from typing import Any

from segundo.ledger import Published
from segundo.record import Record, State
from tests.ledger.suite import Stage, call, settlement

ME = Stage.me
LEASE = 30.0


async def publish(stage: Stage, **how: Any) -> Published:
    return await stage.ledger.publish(**{"queues": None, "window": 100, "limit": 100, "lease": LEASE, **how})


async def published(stage: Stage, **how: Any) -> list[str]:
    return [record.id for record in (await publish(stage, **how)).records]


async def queued(stage: Stage, count: int, **fields: Any) -> list[Record]:
    return list(await stage.ledger.record([call(**fields) for _ in range(count)], owner=ME))


async def test_what_is_published_is_not_published_again_while_its_lease_runs(stage: Stage) -> None:
    record = await stage.queued()
    assert await published(stage) == [record.id]
    assert await published(stage) == []
    stage.clock.move(LEASE - 1)
    assert await published(stage) == []


async def test_what_was_never_claimed_is_published_again_when_its_lease_is_over(stage: Stage) -> None:
    record = await stage.queued()
    assert await published(stage) == [record.id]
    stage.clock.move(LEASE)
    assert await published(stage) == [record.id]


async def test_a_lease_hinders_no_claim_and_what_runs_is_not_published(stage: Stage) -> None:
    record = await stage.queued(attempts=2)
    await publish(stage)
    claimed = await stage.claim(record)
    stage.clock.move(2 * LEASE)
    assert await published(stage) == []
    await stage.ledger.settle([settlement(claimed, State.QUEUED)])
    assert await published(stage) == [record.id]  # at once: the lease was of the message before


async def test_of_what_has_ended_no_message_is_under_way(stage: Stage) -> None:
    """However it ended: nobody is to read there that it was published until some moment to come."""
    records = await queued(stage, 3)
    await publish(stage)
    claimed = await stage.claim(records[0])
    await stage.ledger.settle([settlement(claimed, State.SUCCEEDED)])
    failed = await stage.claim(records[1])
    await stage.ledger.settle([settlement(failed, State.FAILED)])
    await stage.ledger.cancel(records[2].id)
    assert [stage.now_is(record).published_until for record in records] == [None] * 3


async def test_two_who_publish_share_what_there_is(stage: Stage) -> None:
    records = await queued(stage, 4)
    other = await stage.another("other")
    mine = await published(stage, limit=2)
    theirs = await other.publish(queues=None, window=100, limit=100, lease=LEASE)
    assert sorted([*mine, *(record.id for record in theirs.records)]) == sorted(r.id for r in records)


async def test_no_more_than_a_window_of_each_queue_is_published_and_unclaimed(stage: Stage) -> None:
    await queued(stage, 5, queue="images")
    await queued(stage, 5, queue="mails")
    first = (await publish(stage, window=3)).records
    assert [record.queue for record in first] == ["images"] * 3 + ["mails"] * 3
    assert await published(stage, window=3) == []
    await stage.claim(first[0])
    (next_one,) = (await publish(stage, window=3)).records
    assert next_one.queue == "images"


async def test_it_is_said_that_a_window_is_full_until_claims_make_room(stage: Stage) -> None:
    await queued(stage, 4)
    first = await publish(stage, window=3)
    assert (len(first.records), first.full) == (3, True)
    assert (await publish(stage, window=3)).full
    await stage.claim(first.records[0])
    assert len(await published(stage, window=3)) == 1
    for record in first.records[1:]:
        await stage.claim(record)
    assert not (await publish(stage, window=3)).full


async def test_the_most_urgent_are_published_first_and_those_who_crashed_a_process_too(stage: Stage) -> None:
    suspect = await stage.crashed(queue="images")
    calm, urgent = await stage.queued(priority=1), await stage.queued(priority=9)
    assert await published(stage, queues=["default"], limit=1) == [urgent.id]
    assert sorted(await published(stage)) == sorted([suspect.id, calm.id])


async def test_only_the_queues_that_are_asked_for_are_published(stage: Stage) -> None:
    mail, image = await stage.queued(queue="mails"), await stage.queued(queue="images")
    assert await published(stage, queues=["letters"]) == []
    assert await published(stage, but=["mails"]) == [image.id]
    assert await published(stage, queues=["mails"]) == [mail.id]


async def test_what_a_broker_has_forgotten_is_published_again_at_once(stage: Stage) -> None:
    lost = await stage.queued()
    await publish(stage)
    stage.clock.move(4.0)
    kept = await stage.queued()
    await publish(stage)
    stage.clock.move(1.0)
    assert await published(stage, lost=2.0) == [lost.id]
    assert await published(stage, lost=0.5) == [kept.id]


async def test_it_is_said_when_there_may_be_more_to_publish(stage: Stage) -> None:
    assert (await publish(stage)).again_in is None
    await stage.queued(delay=7.0)
    assert (await publish(stage)).again_in == 7.0
    await queued(stage, 2)
    assert (await publish(stage, limit=1)).again_in == 0.0
    stage.clock.move(2.0)
    assert (await publish(stage)).again_in == 5.0
    stage.clock.move(5.0)
    assert (await publish(stage)).again_in == LEASE - 7.0


async def test_a_claim_from_all_queues_but_some_leaves_those(stage: Stage) -> None:
    mail, image = await stage.queued(queue="mails"), await stage.queued(queue="images")
    claimed = await stage.ledger.claim(ME, limit=10, but=["mails"])
    assert [record.id for record in claimed] == [image.id]
    assert await stage.ledger.next_due(but=["mails"]) is None
    assert await stage.ledger.next_due() == 0
    assert stage.now_is(mail).state is State.QUEUED
