"""`segundo retry`, `cancel` and `prune`: what becomes of the records, and what is said."""

import json
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from segundo.cli import place, records
from segundo.ledger.sqlite import SQLiteLedger
from segundo.record import Record, State
from tests.cli.ledgers import ended, fill, held_elsewhere, one_of_each, queued
from tests.cli.terminal import Answer, segundo
from tests.ledger.suite import call
from tests.support import ledger_rows

Inside = Callable[..., Answer]
LEDGER = Path("segundo.db")
RETRIED = (
    "task",
    "arguments",
    "carried",
    "format",
    "queue",
    "priority",
    "attempts",
    "crash_limit",
    "retention",
)


def row(id: str) -> dict[str, object]:
    return ledger_rows(LEDGER, "SELECT * FROM records WHERE id = ?", id)[0]


def failed(**fields: object) -> Record:
    async def story(ledger: SQLiteLedger) -> Record:
        return await ended(ledger, State.FAILED, reason="ValueError", **fields)

    return fill(story)


# retry


def test_retry_records_the_call_again_and_prints_the_new_id() -> None:
    record = failed(
        queue="slow", priority=7, attempts=5, crash_limit=2, carried='{"a": 1}', retention=60.0, delay=0.0
    )
    answer = segundo("retry", record.id)
    assert (answer.code, answer.err) == (0, "")
    new = row(answer.out.strip())
    assert new["id"] != record.id
    assert {name: new[name] for name in RETRIED} == {name: getattr(record, name) for name in RETRIED}
    assert (new["state"], new["retry_of"], new["key"]) == ("queued", record.id, f"retry:{record.id}")
    assert (new["failures"], new["crashes"], new["claim"]) == (0, 0, 0)
    assert row(record.id)["state"] == "failed"  # what has happened has happened


@pytest.mark.parametrize("key", [None, "order-7"])
def test_a_retry_of_what_is_being_retried_is_a_duplicate_and_says_so(key: str | None, inside: Inside) -> None:
    record = failed(key=key)
    first = inside("retry", record.id).out.strip()
    again = inside("retry", record.id[:20])
    second = row(again.out.strip())
    assert (second["state"], second["reason"], second["same_as"]) == ("cancelled", "Duplicate", first)
    assert second["key"] == (key or f"retry:{record.id}")
    assert again.code == 0
    assert first in again.err
    assert "Duplicate" in again.err


def test_a_retry_keeps_its_key_over_generations(inside: Inside) -> None:
    record = failed()
    first = inside("retry", record.id).out.strip()
    inside("cancel", first)
    second = row(inside("retry", first).out.strip())
    assert (second["retry_of"], second["key"]) == (first, f"retry:{record.id}")


@pytest.mark.parametrize("state", [State.WAITING, State.QUEUED, State.RUNNING])
def test_what_has_not_ended_is_not_retried(state: State, inside: Inside) -> None:
    record = one_of_each()[state]
    answer = inside("retry", record.id)
    assert (answer.code, answer.out) == (1, "")
    assert f"it is {state}" in answer.err
    assert len(ledger_rows(LEDGER)) == 6


def test_what_has_no_arguments_any_more_is_not_retried(inside: Inside) -> None:
    record = failed()
    with closing(sqlite3.connect(LEDGER, isolation_level=None)) as connection:
        connection.execute("UPDATE records SET arguments = NULL")
    answer = inside("retry", record.id)
    assert answer.code == 1
    assert "arguments were wiped" in answer.err


# cancel


@pytest.mark.parametrize("state", [State.WAITING, State.QUEUED])
def test_cancel_ends_what_has_not_started(state: State, inside: Inside) -> None:
    record = one_of_each()[state]
    assert inside("cancel", record.id) == Answer(0, f"cancelled {record.id}\n", "")
    assert (row(record.id)["state"], row(record.id)["reason"]) == ("cancelled", "Cancelled")


def test_cancel_asks_what_runs_to_stop_and_leaves_it_to_its_process() -> None:
    with held_elsewhere(call()) as holder:
        (running,) = ledger_rows(LEDGER)
        answer = segundo("cancel", running["id"])
        assert answer.code == 0
        assert answer.out == f"asked {running['id']} to stop: it is running, and has not ended yet\n"
        after = row(running["id"])
        assert (after["state"], after["cancel_requested"], after["owner"]) == (
            "running",
            1,
            f"process-{holder.pid}",
        )
        assert "running, asked to stop" in segundo("show", running["id"]).out


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
def test_what_has_ended_is_not_cancelled(state: State, inside: Inside) -> None:
    record = one_of_each()[state]
    before = row(record.id)
    assert inside("cancel", record.id) == Answer(1, "", f"segundo: {record.id} has ended already: {state}")
    assert row(record.id) == before


def test_a_change_does_not_wait_for_ever_for_a_lock(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "PATIENCE", 0.3)
    record = one_of_each()[State.QUEUED]
    with closing(sqlite3.connect(LEDGER, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        answer = inside("cancel", record.id)
        stranger.execute("ROLLBACK")
    assert answer.code == 1
    assert "another program holds its lock" in answer.err
    assert row(record.id)["state"] == "queued"


# prune


def test_prune_deletes_what_is_past_its_retention_and_no_more() -> None:
    async def story(ledger: SQLiteLedger) -> set[str]:
        kept = [
            await ended(ledger, retention=3600.0),
            await ended(ledger),
            await queued(ledger, retention=0.0),
        ]
        await ended(ledger, retention=0.0)
        await ended(ledger, State.FAILED, retention=0.0)
        return {record.id for record in kept}

    kept = fill(story)
    assert segundo("prune") == Answer(0, "deleted 2 records\n", "")
    assert {record["id"] for record in ledger_rows(LEDGER)} == kept


def test_prune_by_age_deletes_what_ended_before_whatever_its_retention(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "PRUNED_AT_ONCE", 2)

    async def old(ledger: SQLiteLedger) -> None:
        for _ in range(5):
            await ended(ledger)
        await queued(ledger)

    fill(old, clock=lambda: 1_000_000.0)
    fill(ended)
    assert inside("prune", "--older-than", "7d") == Answer(0, "deleted 5 records\n", "")
    assert [record["state"] for record in ledger_rows(LEDGER)] == ["queued", "succeeded"]


def test_prune_refuses_an_age_that_is_none(inside: Inside) -> None:
    one_of_each()
    answer = inside("prune", "--older-than", "a week")
    assert answer.code == 1
    assert answer.err.startswith("segundo: --older-than: a duration is")
    assert len(ledger_rows(LEDGER)) == 6


def test_a_change_beside_a_process_that_was_killed_leaves_its_records_to_the_rescue(inside: Inside) -> None:
    with held_elsewhere(call()) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    (running,) = ledger_rows(LEDGER)
    inside("cancel", running["id"])
    assert row(running["id"])["state"] == "running"
    assert json.loads(inside("ls", "--json").out)["state"] == "running"
