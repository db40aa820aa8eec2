"""The claim number fences: only who holds the record's claim settles it, and no counter ever goes back."""

import asyncio

import pytest

from segundo.ledger import Beat
from segundo.record import Record, State
from tests.ledger.suite import Stage, call, settlement

TARGETS = [State.SUCCEEDED, State.FAILED, State.CANCELLED, State.QUEUED]


async def twice_claimed(stage: Stage) -> tuple[Record, Record]:
    """A record as its first claim knew it, and as its second does."""
    old = await stage.running(crash_limit=1, attempts=None)
    await stage.ledger.settle([settlement(old, State.QUEUED, counted=False)])
    return old, await stage.claim(old)


async def test_each_claim_has_the_next_number(stage: Stage) -> None:
    old, new = await twice_claimed(stage)
    assert (old.claim, new.claim) == (1, 2)


@pytest.mark.parametrize("target", TARGETS)
async def test_an_old_claim_settles_nothing_and_is_told(stage: Stage, target: State) -> None:
    old, new = await twice_claimed(stage)
    assert await stage.ledger.settle([settlement(old, target)]) == [False]
    assert stage.now_is(new) == new


@pytest.mark.parametrize("old_first", [True, False])
@pytest.mark.parametrize("target", TARGETS)
async def test_an_old_claim_and_the_new_one_settled_together_are_told_apart(
    stage: Stage, target: State, old_first: bool
) -> None:
    old, new = await twice_claimed(stage)
    both = [settlement(old, target), settlement(new, target)]
    told = await stage.ledger.settle(both if old_first else both[::-1])
    assert told == ([False, True] if old_first else [True, False])
    assert stage.now_is(new).state == target


@pytest.mark.parametrize("target", TARGETS)
async def test_an_old_claim_and_the_new_one_settled_at_once_are_told_apart(
    stage: Stage, target: State
) -> None:
    old, new = await twice_claimed(stage)
    answers = await asyncio.gather(
        stage.ledger.settle([settlement(old)]),
        stage.ledger.settle([settlement(new, target)]),
        stage.ledger.settle([settlement(old)]),
    )
    assert list(answers) == [[False], [True], [False]]
    assert stage.now_is(new).state == target


@pytest.mark.parametrize("second", TARGETS)
async def test_a_claim_settles_once(stage: Stage, second: State) -> None:
    record = await stage.running()
    assert await stage.ledger.settle([settlement(record), settlement(record, second)]) == [True, False]
    assert await stage.ledger.settle([settlement(record, second)]) == [False]
    assert stage.now_is(record).state == State.SUCCEEDED


async def test_settlements_that_come_together_are_answered_each_in_its_place(stage: Stage) -> None:
    ours = [await stage.running() for _ in range(4)]
    lost = ours[1]._replace(claim=7)
    told = await stage.ledger.settle(
        [
            settlement(ours[0], State.FAILED, reason="ValueError"),
            settlement(lost),
            settlement(ours[2], result='"two"'),
            settlement(ours[3]),
        ]
    )
    assert told == [True, False, True, True]
    now = [stage.now_is(record) for record in ours]
    assert [record.state for record in now] == ["failed", "running", "succeeded", "succeeded"]
    assert [record.result for record in now] == [None, None, '"two"', None]


async def test_no_settlements_are_no_answers(stage: Stage) -> None:
    assert await stage.ledger.settle([]) == []


async def test_an_old_claim_reports_no_progress(stage: Stage) -> None:
    old, new = await twice_claimed(stage)
    assert await stage.ledger.progress(old.id, old.claim, '"old"') is False
    assert await stage.ledger.progress(new.id, new.claim, '"new"') is True
    assert stage.now_is(new).progress == '"new"'


@pytest.mark.parametrize("result", [None, '"done"'])
async def test_an_attempts_last_progress_is_stored_with_its_end_and_an_old_claims_is_not(
    stage: Stage, result: str | None
) -> None:
    old, new = await twice_claimed(stage)
    await stage.ledger.progress(new.id, new.claim, '"half"')
    told = [
        settlement(old, result=result, progress='"old"'),
        settlement(new, result=result, progress='"all"'),
    ]
    assert await stage.ledger.settle(told) == [False, True]
    now = stage.now_is(new)
    assert (now.state, now.result, now.progress) == (State.SUCCEEDED, result, '"all"')


async def test_an_ended_record_keeps_its_progress_and_another_attempt_begins_with_none(stage: Stage) -> None:
    ended, again, put_back = [await stage.running(attempts=2) for _ in range(3)]
    for record in (ended, again, put_back):
        await stage.ledger.progress(record.id, record.claim, '"half"')
    await stage.ledger.settle(
        [
            settlement(ended, State.FAILED),
            settlement(again, State.QUEUED, progress='"more"'),
            settlement(put_back, State.QUEUED, counted=False),
        ]
    )
    assert [stage.now_is(record).progress for record in (ended, again, put_back)] == ['"half"', None, None]
    last = await stage.claim(again)
    await stage.ledger.settle([settlement(last, State.QUEUED, progress='"no more attempts"')])
    now = stage.now_is(again)
    assert (now.state, now.progress) == (State.FAILED, '"no more attempts"')


async def test_what_is_rescued_begins_again_without_progress_or_ends_with_it(stage: Stage) -> None:
    owner = "dying"
    ghost = await stage.another(owner)
    calls = [call(crash_limit=1), call(crash_limit=0)]
    recorded = await ghost.record(calls, owner=owner)
    for record in await ghost.claim(owner, ids=[record.id for record in recorded], limit=2):
        await ghost.progress(record.id, record.claim, '"half"')
    await stage.let_die(ghost)
    await stage.ledger.rescue()
    again, ended = (stage.now_is(record) for record in recorded)
    assert (again.state, again.progress) == (State.QUEUED, None)
    assert (ended.state, ended.progress) == (State.FAILED, '"half"')


async def test_what_another_owner_runs_is_lost_to_who_believes_to_run_it(stage: Stage) -> None:
    await stage.another("other")
    record = await stage.claim(await stage.queued(), "other")
    beat = await stage.ledger.beat(stage.me, running=[record.id])
    assert beat == Beat(lost=(record.id,), cancel=())
    assert stage.now_is(record) == record


async def test_a_beat_names_what_is_to_be_cancelled_among_what_runs_here(stage: Stage) -> None:
    ours = [await stage.running() for _ in range(3)]
    for record in ours[1:]:
        await stage.ledger.cancel(record.id)
    beat = await stage.ledger.beat(stage.me, running=[record.id for record in ours])
    assert (beat.lost, set(beat.cancel)) == ((), {ours[1].id, ours[2].id})


async def test_a_beat_puts_back_what_does_not_run_here_and_counts_nothing(stage: Stage) -> None:
    ours, stray = await stage.running(), await stage.running(crash_limit=0)
    await stage.another("other")
    theirs = await stage.claim(await stage.queued(), "other")
    assert await stage.ledger.beat(stage.me, running=[ours.id]) == Beat((), ())
    assert (stage.now_is(ours), stage.now_is(theirs)) == (ours, theirs)
    now = stage.now_is(stray)
    assert (now.state, now.owner, now.failures, now.crashes) == (State.QUEUED, None, 0, 0)
    assert (await stage.claim(stray)).claim == stray.claim + 1


async def test_a_beat_puts_back_nothing_that_waits_for_a_request(stage: Stage) -> None:
    held = await stage.held()
    await stage.ledger.beat(stage.me, running=[])
    assert stage.now_is(held) == held


async def test_failures_count_attempts_and_putting_back_counts_none(stage: Stage) -> None:
    record = await stage.running(attempts=5)
    counted = []
    for again in (True, False, True, False, True):
        failed = settlement(record, State.QUEUED, counted=again)
        assert await stage.ledger.settle([failed]) == [True]
        record = await stage.claim(record)
        counted.append((record.failures, record.attempt, record.claim))
    assert counted == [(1, 2, 2), (1, 2, 3), (2, 3, 4), (2, 3, 5), (3, 4, 6)]


async def test_the_last_attempt_that_asks_for_another_has_failed(stage: Stage) -> None:
    record = await stage.running(attempts=1)
    again = settlement(record, State.QUEUED, reason="ValueError", error="{}", delay=10)
    assert await stage.ledger.settle([again]) == [True]
    now = stage.now_is(record)
    assert (now.state, now.reason, now.error) == (State.FAILED, "ValueError", "{}")
    assert (now.failures, now.finished_at, now.run_at) == (1, stage.clock.now, record.run_at)


async def test_attempts_without_a_limit_do_not_end(stage: Stage) -> None:
    record = await stage.running(attempts=None)
    for failures in range(1, 20):
        await stage.ledger.settle([settlement(record, State.QUEUED)])
        record = await stage.claim(record)
        assert record.failures == failures


async def test_the_error_of_an_attempt_is_kept_while_the_next_is_tried(stage: Stage) -> None:
    record = await stage.running(attempts=3)
    await stage.ledger.settle([settlement(record, State.QUEUED, reason="ValueError", error='"first"')])
    queued = stage.now_is(record)
    assert (queued.reason, queued.error) == ("ValueError", '"first"')
    await stage.ledger.settle([settlement(await stage.claim(record))])
    now = stage.now_is(record)
    assert (now.state, now.reason, now.failures) == (State.SUCCEEDED, None, 1)


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
async def test_a_wish_to_cancel_changes_no_outcome(stage: Stage, state: State) -> None:
    record = await stage.running(attempts=None)
    assert (await stage.ledger.cancel(record.id)).cancel_requested
    assert await stage.ledger.settle([settlement(record, state)]) == [True]
    assert stage.now_is(record).state == state


@pytest.mark.parametrize("counted", [True, False])
async def test_a_wish_to_cancel_wins_over_another_attempt(stage: Stage, counted: bool) -> None:
    record = await stage.running(attempts=None)
    await stage.ledger.cancel(record.id)
    again = settlement(record, State.QUEUED, reason="ValueError", delay=5.0, counted=counted)
    assert await stage.ledger.settle([again]) == [True]
    now = stage.now_is(record)
    assert (now.state, now.reason) == (State.CANCELLED, "Cancelled")
    assert (now.finished_at, now.run_at) == (stage.clock.now, record.run_at)


async def test_a_cancel_of_what_has_ended_leaves_it_and_shows_it(stage: Stage) -> None:
    record = await stage.ended()
    assert await stage.ledger.cancel(record.id) == record
    assert stage.now_is(record) == record


async def test_a_cancel_answers_with_the_record_as_it_became(stage: Stage) -> None:
    queued, running = await stage.queued(), await stage.running()
    cancelled = await stage.ledger.cancel(queued.id)
    asked = await stage.ledger.cancel(running.id)
    assert (cancelled.state, cancelled.reason) == (State.CANCELLED, "Cancelled")
    assert asked == running._replace(cancel_requested=True)
    assert (stage.now_is(queued), stage.now_is(running)) == (cancelled, asked)


async def test_a_record_is_settled_by_its_claim_whoever_brings_it(stage: Stage) -> None:
    """A worker that joined anew under another name still holds the claims that it was given."""
    record = await stage.running()
    other = await stage.another("other")
    assert await other.settle([settlement(record)]) == [True]


def test_a_call_of_the_suite_is_outside_a_request_unless_it_says_otherwise() -> None:
    assert not call().held
    assert call(held=True).held


async def test_what_is_put_back_keeps_the_reason_of_the_failure_before_it(stage: Stage) -> None:
    record = await stage.running(attempts=None, crash_limit=1)
    failed = settlement(record, State.QUEUED, reason="ValueError", error='"first"')
    await stage.ledger.settle([failed])
    await stage.claim(record)
    await stage.ledger.beat(stage.me, running=[])
    now = stage.now_is(record)
    assert (now.state, now.reason, now.error, now.failures) == (State.QUEUED, "ValueError", '"first"', 1)
