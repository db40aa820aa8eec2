"""Celery workers run what an app records: by the one runner, in the app's own lifespan, whatever dies."""

import os
import signal
from pathlib import Path

import httpx
import pytest

from tests.celery.stage import CeleryWorker, Stage
from tests.support import ledger_rows, wait_until

PATIENCE = 30


def test_a_call_a_retry_and_a_result_go_by_way_of_a_worker(stage: Stage) -> None:
    (plain,) = stage.add("plain", "one")
    (twice,) = stage.add("twice", "mail")
    wait_until(lambda: stage.states() == {"queued": 2})
    with CeleryWorker("-c", "2") as worker:
        wait_until(stage.ended, PATIENCE)
        children = {int(event[0]) for event in stage.events() if event[1] == "starts"} - {stage.server.pid}
    assert stage.states() == {"succeeded": 2}
    assert stage.record(twice)["result"] == '"mail sent"'
    assert (stage.said("plain", "one"), stage.said("twice", "mail", 1), stage.said("twice", "mail", 2)) == (
        *(1, 1, 1),
    )
    assert {*stage.who("plain", "one"), *stage.who("twice", "mail", 2)} <= children
    assert f"main:twice[{twice}] retry" in worker.output()
    assert f"main:plain[{plain}] succeeded" in worker.output()


def test_a_worker_that_is_killed_loses_nothing_and_starts_no_plain_function_twice(stage: Stage) -> None:
    with CeleryWorker("-c", "2") as worker:
        (plain,), (declared,) = stage.add("waits", "go"), stage.add("until", "go")
        wait_until(lambda: stage.said("begins", "go") == 2, PATIENCE)
        worker.kill()
        (later,) = stage.add("plain", "later")
        worker.start()
        wait_until(lambda: stage.said("begins", "go") == 3, PATIENCE)
        Path("go").touch()
        wait_until(stage.ended, PATIENCE)
    assert (stage.record(plain)["state"], stage.record(plain)["reason"]) == ("failed", "WorkerLost")
    assert (stage.record(declared)["state"], stage.record(declared)["crashes"]) == ("succeeded", 1)
    assert stage.record(later)["state"] == "succeeded"
    assert stage.said("ends", "go") == 1


def test_a_pool_process_that_is_killed_is_replaced_and_its_task_runs_again(stage: Stage) -> None:
    with CeleryWorker("-c", "1"):
        (id,) = stage.add("until", "go")
        (child,) = wait_until(lambda: stage.who("begins", "go"), PATIENCE)
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: stage.said("begins", "go") == 2, PATIENCE)
        Path("go").touch()
        wait_until(stage.ended, PATIENCE)
    assert (stage.record(id)["state"], stage.record(id)["crashes"]) == ("succeeded", 1)
    assert stage.said("ends", "go") == 1


def test_what_a_worker_is_killed_with_while_it_stops_counts_no_crash(stage: Stage) -> None:
    with CeleryWorker("-c", "1") as worker:
        (id,) = stage.add("until", "go")
        wait_until(lambda: stage.said("begins", "go"), PATIENCE)
        worker.terminate()
        wait_until(lambda: ledger_rows(Path("segundo.db"), "SELECT 1 FROM workers WHERE stopping"), PATIENCE)
        worker.kill()
        worker.start()
        wait_until(lambda: stage.said("begins", "go") == 2, PATIENCE)
        Path("go").touch()
        wait_until(stage.ended, PATIENCE)
    assert (stage.record(id)["state"], stage.record(id)["crashes"]) == ("succeeded", 0)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_every_pool_runs_dependencies_children_timeouts_and_failures(stage: Stage, pool: str) -> None:
    with CeleryWorker("--pool", pool, "-c", "2"):
        (injected,), (fails,), (too_long,) = (
            stage.add(name, "it") for name in ("injected", "fails", "too_long")
        )
        wait_until(lambda: stage.said("plain", "child-of-it") and stage.ended(), PATIENCE)
    assert stage.record(injected)["result"] == '"it by a connection"'
    assert (stage.said("opens", "the", "pool"), stage.said("closes")) == (1, 1)
    assert (stage.record(fails)["state"], stage.error(fails)) == ("failed", "ValueError")
    assert (stage.record(too_long)["state"], stage.record(too_long)["reason"]) == ("failed", "TimedOut")
    workers = {event[0] for event in stage.events() if event[1] == "starts"} - {str(stage.server.pid)}
    assert workers == {event[0] for event in stage.events() if event[1] == "stops"}  # each in good order


def test_a_solo_worker_goes_on_without_waiting_for_a_timer(stage: Stage) -> None:
    """Celery's own does over RabbitMQ: it runs some ten tasks a second, and these would take minutes."""
    answer = httpx.post(f"{stage.server.url}/urgent/it", params={"count": 2000}, timeout=60)
    assert answer.status_code == 200
    with CeleryWorker("--pool", "solo"):
        wait_until(stage.ended, PATIENCE, every=0.2)
    assert stage.said("urgent", "it") == 2000


def test_a_cancel_reaches_what_runs_on_a_worker(stage: Stage) -> None:
    with CeleryWorker("-c", "1"):
        (running,) = stage.add("forever", "it")
        wait_until(lambda: stage.said("begins", "it"), PATIENCE)
        stage.cancel(running)
        wait_until(stage.ended, PATIENCE)
    assert (stage.record(running)["state"], stage.said("cleaned", "it")) == ("cancelled", 1)


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_worker_that_has_another_ledger_says_so(stage: Stage) -> None:
    with CeleryWorker("-c", "1", "--pool", "solo", env={"SEGUNDO_LEDGER": "another.db"}) as worker:
        stage.add("urgent", "it", count=2)
        wait_until(lambda: "not in this worker's ledger" in worker.output(), PATIENCE)
        wait_until(lambda: worker.output().count("received") == 2, PATIENCE)
    assert worker.output().count("not in this worker's ledger") == 1
    assert stage.states() == {"queued": 2}
