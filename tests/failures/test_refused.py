"""Requests that give up on their calls, cancelled or too late, at every stage of recording them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from segundo.errors import LedgerUnavailable
from segundo.ledger.sqlite import SQLiteLedger
from segundo.record import Call, Link, Record, State
from tests.failures.conftest import OpenLedger
from tests.failures.faults import Error, Faults, Gate, When, commit, end_of_turn, full, io_error
from tests.failures.story import ME, call, rows
from tests.support import wait_until_async

Recording = asyncio.Task[list[Record]]


def calls_of_a_request() -> list[Call]:
    """The calls of one request: two in order, and one with a key."""
    first = call()
    return [first, call(after=(Link(first.id, "run"),)), call(key="k")]


def recording(ledger: SQLiteLedger, calls: list[Call]) -> Recording:
    return asyncio.ensure_future(ledger.record(calls, owner=ME))


async def stages(
    opened: OpenLedger, calls: list[Call], **settings: float
) -> AsyncIterator[tuple[SQLiteLedger, Recording, Gate]]:
    """The recording of `calls` again and again, each time stopped at the next statement, until it is not."""
    number, tries = 1, 0
    while True:
        faults, tries = Faults(), tries + 1
        async with opened(f"stage-{tries}", faults, **settings) as ledger:
            gate = Gate(faults, number)
            request = recording(ledger, calls)
            await wait_until_async(lambda: gate.reached or request.done())  # noqa: B023  (called at once)
            was_faster = request.done()  # or was too late before it came to the gate
            if not was_faster:
                number += 1
                yield ledger, request, gate
            gate.open()
            await asyncio.wait([request])
            await ledger.rescue()  # one more transaction
            assert not gone_wrong(ledger, request), faults.seen
            if was_faster and not request.exception():
                assert number > 3, "a recording has more stages"
                return


def gone_wrong(ledger: SQLiteLedger, request: Recording) -> str:
    """Whether the answer is a lie, and which."""
    told = "refused" if request.cancelled() or request.exception() else "recorded"
    stored = "recorded" if rows(ledger) else "refused"
    return "" if told == stored else f"told {told}, and is {stored}"


async def test_a_cancelled_request_leaves_nothing_at_whatever_stage(opened: OpenLedger) -> None:
    async for _, request, gate in stages(opened, calls_of_a_request()):
        request.cancel()
        await asyncio.wait([request])
        assert request.cancelled()
        gate.open()


async def test_a_request_that_waited_too_long_leaves_nothing_at_whatever_stage(opened: OpenLedger) -> None:
    async for _, request, gate in stages(opened, calls_of_a_request(), record_timeout=0.02):
        await asyncio.wait([request])
        assert isinstance(request.exception(), LedgerUnavailable), "and it did not wait for the writer"
        gate.open()


async def test_a_call_outside_a_request_is_told_the_truth_at_whatever_stage(opened: OpenLedger) -> None:
    """Nobody holds it back, so once the writer is at it, only the writer knows."""
    told = set()
    async for ledger, request, gate in stages(opened, [call(held=False)], record_timeout=0.02):
        await asyncio.wait([request], timeout=0.1)
        told.add("too late" if request.done() else "waits for the writer")
        claiming = asyncio.ensure_future(ledger.claim(ME, limit=1))  # as soon as it is there
        gate.open()
        await asyncio.wait([request, claiming])
        assert len(claiming.result()) == (request.exception() is None)
    assert told == {"too late", "waits for the writer"}


async def test_a_request_cancelled_when_its_answer_is_on_the_way_leaves_nothing(opened: OpenLedger) -> None:
    async with opened() as ledger:
        for turns in range(20):  # of the loop, between the commit and the cancellation
            before = ledger.commits
            request = recording(ledger, [call()])
            for _ in range(2):
                await end_of_turn()
            while ledger.commits == before:
                pass  # the loop must not run, or it would deliver the answer
            for _ in range(turns):
                await end_of_turn()
            if request.done():
                assert len(request.result()) == len(rows(ledger)) == 1
                return
            request.cancel()
            await asyncio.wait([request])
            await ledger.rescue()
            assert not gone_wrong(ledger, request)
    raise AssertionError("the answer never came")


async def test_what_was_given_up_before_the_writer_began_is_never_written(
    opened: OpenLedger, faults: Faults
) -> None:
    async with opened() as ledger:
        gate = Gate(faults, 1)
        held_up = asyncio.ensure_future(ledger.rescue())
        await wait_until_async(lambda: gate.reached)
        request = recording(ledger, [call()])
        await end_of_turn()
        request.cancel()
        await asyncio.wait([request])
        gate.open()
        await held_up
        await ledger.rescue()
        assert not [sql for sql in faults.seen if "INSERT INTO records" in sql]


@pytest.mark.parametrize(
    ("part", "error", "forgotten"),
    [("INSERT", io_error, False), ("COMMIT", full, False), ("COMMIT", io_error, True)],
)
async def test_only_what_may_be_in_the_file_is_remembered_to_be_forgotten(
    part: str, error: Error, forgotten: bool, opened: OpenLedger, faults: Faults
) -> None:
    """Requests may be refused for hours while a disk is full: they must not fill the memory."""
    async with opened() as ledger:
        faults.arm(lambda sql: part in sql, error=error)
        for _ in range(3):
            with pytest.raises(LedgerUnavailable):
                await ledger.record([call()], owner=ME)
        faults.arm(lambda sql: False)
        await ledger.rescue()
        assert any("DELETE FROM records" in sql for sql in faults.seen) == forgotten


# Two requests in one commit, of which one is refused


async def together(ledger: SQLiteLedger, faults: Faults, *calls: Call) -> tuple[list[Recording], Gate]:
    """A request for each call, all in one transaction, which stands before its commit."""
    earlier = Gate(faults, 1)
    held_up = asyncio.ensure_future(ledger.rescue())
    await wait_until_async(lambda: earlier.reached)
    requests = [recording(ledger, [call]) for call in calls]
    await end_of_turn()
    gate = Gate(
        faults, lambda sql: commit(sql) and any("INSERT INTO records" in seen for seen in faults.seen)
    )
    earlier.open()
    await held_up
    await wait_until_async(lambda: gate.reached)
    return requests, gate


async def test_a_duplicate_keeps_the_refused_call_that_it_is_the_same_as(
    opened: OpenLedger, faults: Faults
) -> None:
    async with opened() as ledger:
        mine, same = call(key="k"), call(key="k")
        (refused, answered), gate = await together(ledger, faults, mine, same)
        refused.cancel()
        gate.open()
        (duplicate,) = await answered
        assert (duplicate.reason, duplicate.same_as) == ("Duplicate", mine.id)
        assert [record.id for record in await ledger.claim(ME, limit=2)] == [mine.id]


async def test_a_call_and_its_duplicate_are_both_gone_when_both_are_refused(
    opened: OpenLedger, faults: Faults
) -> None:
    async with opened() as ledger:
        requests, gate = await together(ledger, faults, call(key="k"), call(key="k"))
        for request in requests:
            request.cancel()
        await asyncio.wait(requests)
        gate.open()
        assert await ledger.claim(ME, limit=2) == []
        assert rows(ledger) == {}


async def test_a_refused_duplicate_is_gone_and_the_first_stays(opened: OpenLedger, faults: Faults) -> None:
    async with opened() as ledger:
        (answered, refused), gate = await together(ledger, faults, call(key="k"), call(key="k"))
        refused.cancel()
        gate.open()
        (record,) = await answered
        await ledger.rescue()
        assert list(rows(ledger)) == [record.id]
        await ledger.release(ME, [record.id])
        assert len(await ledger.claim(ME, limit=2)) == 1


@pytest.mark.parametrize(
    ("on_failure", "state", "reason"),
    [("cancel", State.CANCELLED, "PredecessorFailed"), ("run", State.QUEUED, None)],
)
async def test_what_waits_for_a_refused_call_takes_it_for_failed(
    on_failure: str, state: State, reason: str | None, opened: OpenLedger, faults: Faults
) -> None:
    async with opened() as ledger:
        first = call()
        after = call(after=(Link(first.id, on_failure),), held=False)
        (refused, answered), gate = await together(ledger, faults, first, after)
        refused.cancel()
        gate.open()
        assert [record.state for record in await answered] == [State.WAITING]
        await ledger.rescue()
        assert {id: (row["state"], row["reason"]) for id, row in rows(ledger).items()} == {
            after.id: (state, reason)
        }


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("part", ["DELETE FROM records", "COMMIT"])
async def test_a_refused_call_does_not_stay_though_its_deletion_fails(
    part: str, when: When, lasting: bool, opened: OpenLedger, faults: Faults
) -> None:
    async with opened() as ledger:
        (refused,), gate = await together(ledger, faults, call())
        refused.cancel()
        await asyncio.wait([refused])
        deletes = lambda: any("DELETE FROM records" in sql for sql in faults.seen)  # noqa: E731
        faults.arm(lambda sql: part in sql and deletes(), when=when, lasting=lasting)
        gate.open()
        await wait_until_async(lambda: faults.struck)
        faults.heal()
        await wait_until_async(lambda: rows(ledger) == {})


async def test_what_a_request_takes_back_is_gone_on_return(opened: OpenLedger) -> None:
    async with opened() as ledger:
        records = await ledger.record(calls_of_a_request(), owner=ME)
        await ledger.forget(ME, [record.id for record in records])
        assert not rows(ledger)


async def test_what_was_taken_back_while_the_ledger_failed_is_gone_before_anything_else_happens(
    opened: OpenLedger, faults: Faults
) -> None:
    async with opened() as ledger:
        (record,) = await ledger.record([call()], owner=ME)
        faults.arm(commit, error=io_error)
        with pytest.raises(LedgerUnavailable):
            await ledger.forget(ME, [record.id])
        faults.arm(lambda sql: False)
        await ledger.release(ME, [record.id])
        assert await ledger.claim(ME, limit=1) == []
        assert not rows(ledger)
