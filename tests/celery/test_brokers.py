"""Brokers that are down, frozen, restarted, forgetful, or send twice: nobody notices, and nothing is lost."""

import asyncio
import re
import signal
import time
from pathlib import Path

import httpx
import pytest

from examples.demo.servers import waiting_in
from segundo.executors.celery.apps import make_app
from segundo.executors.celery.publisher import Publisher
from segundo.ledger.sqlite import SQLiteLedger
from segundo.record import Record
from tests.celery.proxy import Proxy
from tests.celery.stage import STRANGER, CeleryWorker, Stage
from tests.ledger import suite as ledgers
from tests.support import wait_until

PATIENCE = 30


def test_calls_wait_for_a_broker_that_is_down_and_go_out_when_it_is_back(stage: Stage) -> None:
    with CeleryWorker("-c", "2"):
        (before,) = stage.add("plain", "before")
        wait_until(lambda: stage.ended([before]), PATIENCE)
        stage.broker.stop()
        stage.add("plain", "meanwhile", count=3)
        wait_until(lambda: "calls wait in the ledger" in stage.server.output(), PATIENCE)
        assert stage.states() == {"succeeded": 1, "queued": 1, "waiting": 2}
        stage.broker.start()
        wait_until(stage.ended, PATIENCE)
    assert stage.said("plain", "meanwhile") == 3


def test_a_worker_looks_for_a_broker_that_has_long_been_down_as_often_as_before(stage: Stage) -> None:
    """Celery itself looks after 2 seconds, then 4, and so on up to 30: calls wait for it when it is back."""
    with CeleryWorker("-c", "1") as worker:
        stage.broker.stop()
        wait_until(lambda: worker.output().count("Trying again in") >= 3, PATIENCE)
        assert set(re.findall(r"Trying again in (\S+) seconds", worker.output())) == {"2.00"}
        stage.broker.start()
        stage.add("plain", "after")
        wait_until(stage.ended, PATIENCE)


def test_a_broker_that_is_killed_and_has_forgotten_everything_loses_nothing(stage: Stage) -> None:
    """Its messages were confirmed, and its records are leased for a minute."""
    ids = stage.add("until", "go", count=5)
    Path("go").touch()
    wait_until(lambda: all(stage.record(id)["published_until"] for id in ids), PATIENCE)
    stage.broker.stop(signal.SIGKILL)
    stage.broker.start()
    with CeleryWorker("-c", "2"):
        wait_until(stage.ended, PATIENCE)
    assert stage.states() == {"succeeded": 5}
    assert stage.said("begins", "go") == 5


def test_a_broker_that_is_killed_while_workers_are_busy_loses_nothing(stage: Stage) -> None:
    with CeleryWorker("-c", "2") as worker:
        ids = stage.add("until", "go", count=4)
        wait_until(lambda: stage.said("begins", "go") == 2, PATIENCE)
        stage.broker.stop(signal.SIGKILL)
        stage.broker.start()
        Path("go").touch()
        wait_until(stage.ended, 60)
        assert stage.said("begins", "go") == len(ids), worker.output()
    assert stage.states() == {"succeeded": 4}


def test_a_broker_that_drops_every_packet_holds_up_no_request(stage: Stage) -> None:
    stage.add("plain", "before")
    wait_until(lambda: any(row["published_until"] for row in stage.records().values()), PATIENCE)
    stage.broker.signal(signal.SIGSTOP)
    try:
        stage.add("plain", "first")  # its publishing is what waits
        slowest = asyncio.run(slowest_of(f"{stage.server.url}/plain/meanwhile", 50))
        assert slowest < 4  # the broker has 5 s for each step: no request waited for one
    finally:
        stage.broker.signal(signal.SIGCONT)
    with CeleryWorker("-c", "2"):
        wait_until(stage.ended, PATIENCE)
    assert stage.said("plain", "meanwhile") == 50


async def slowest_of(url: str, count: int) -> float:
    async with httpx.AsyncClient(timeout=30) as client:

        async def took() -> float:
            begin = time.perf_counter()
            (await client.post(url)).raise_for_status()
            return time.perf_counter() - begin

        return max([await took() for _ in range(count)])


def test_messages_that_come_many_times_and_late_run_once(stage: Stage) -> None:
    (id,) = stage.add("plain", "once")
    again(stage, id, 5)
    with CeleryWorker("-c", "2") as worker:
        wait_until(lambda: worker.output().count(f"main:plain[{id}] received") == 6, PATIENCE)
        wait_until(stage.ended, PATIENCE)
        again(stage, id, 2)
        wait_until(lambda: worker.output().count(f"main:plain[{id}] received") == 8, PATIENCE)
    assert stage.said("plain", "once") == 1
    assert stage.record(id)["claim"] == 1


def again(stage: Stage, id: str, times: int) -> None:
    """The broker delivers a message again."""

    async def found() -> list[Record]:
        ledger = SQLiteLedger(Path("segundo.db"))
        await ledger.open()
        try:
            return list(await ledger.select(ids=[id]))
        finally:
            await ledger.close()

    publisher = Publisher(make_app(stage.broker.url()), patience=5, full=1000)
    publisher.send(asyncio.run(found()) * times)
    publisher.close()


async def test_messages_do_not_pile_up_while_nobody_takes_them(stage: Stage) -> None:
    async with ledgers.Stage.on(ledgers.SQLiteStore(Path("another.db"))) as ledger:
        records = [await ledger.queued() for _ in range(6)]
    app = make_app(stage.broker.url())
    publisher = Publisher(app, patience=5, full=10)
    for _ in range(5):
        publisher.send(records)
    publisher.close()
    assert waiting_in(stage.broker.url()) == 12


async def test_what_is_added_while_the_queue_is_full_of_copies_does_not_wait_for_its_lease(
    stage: Stage,
) -> None:
    async with ledgers.Stage.on(ledgers.SQLiteStore(Path("another.db"))) as ledger:
        stranger = await ledger.queued(queue="emails")
    publisher = Publisher(make_app(stage.broker.url()), patience=5, full=10_000)
    publisher.send([stranger] * 1200)
    publisher.close()
    (id,) = stage.add("urgent", "it")
    wait_until(lambda: stage.record(id)["published_until"], PATIENCE)
    lease = stage.record(id)["published_until"]
    with CeleryWorker("-c", "2"):
        wait_until(lambda: stage.ended([id]), 90)
    assert stage.record(id)["started_at"] < lease


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_a_worker_whose_connection_broke_off_unknown_to_the_broker_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(stage.broker.port) as proxy:
        monkeypatch.setenv(
            "SEGUNDO_BROKER", stage.broker.url().replace(str(stage.broker.port), str(proxy.port))
        )
        with CeleryWorker("-c", "2") as worker:
            (before,) = stage.add("plain", "before")
            wait_until(lambda: stage.ended([before]), PATIENCE)
            proxy.break_off()
            wait_until(lambda: not worker.runs or worker.output().count("Connected to") == 2, PATIENCE)
            assert worker.runs, worker.output()
            for _ in range(6):  # of which the broker gives some to whom it still believes to be there
                stage.add("plain", "later")
            wait_until(lambda: stage.said("plain", "later") >= 3, PATIENCE)


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_a_worker_that_has_nothing_of_ours_may_take_the_name_of_one_that_has_stopped(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As who goes back to what was there before. It has another kind of mailbox."""
    Path("stranger.py").write_text(STRANGER)
    with CeleryWorker("-c", "1"):
        stage.add("plain", "one")
        wait_until(stage.ended, PATIENCE)
    with CeleryWorker("-c", "1", target="stranger:celery", queues=["celery"]) as worker:
        assert worker.runs, worker.output()


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_message_that_comes_again_while_its_task_runs_is_dropped(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis gives out again what is not acknowledged within its visibility timeout."""
    monkeypatch.setenv("VISIBILITY", "1")
    with CeleryWorker("-c", "2") as worker:
        (id,) = stage.add("until", "go")
        wait_until(lambda: worker.output().count(f"main:until[{id}] received") > 1, 60)
        Path("go").touch()
        wait_until(stage.ended, PATIENCE)
    assert (stage.said("begins", "go"), stage.record(id)["claim"]) == (1, 1)


def test_of_a_queue_that_is_not_there_no_message_waits(stage: Stage) -> None:
    """Redis has none that is empty."""
    assert waiting_in(stage.broker.url(), "another") == 0


def test_urgent_records_overtake_in_the_broker_too(stage: Stage) -> None:
    with CeleryWorker("-c", "1", "--pool", "solo"):
        stage.add("until", "go")
        wait_until(lambda: stage.said("begins", "go"), PATIENCE)
        stage.add("calm", "calm")
        stage.add("urgent", "urgent")
        # A lease comes before its message.
        wait_until(lambda: waiting_in(stage.broker.url(), "emails") == 2, PATIENCE)
        Path("go").touch()
        wait_until(stage.ended, PATIENCE)
    spoken = [event[1] for event in stage.events() if event[1] in ("calm", "urgent")]
    assert spoken == ["urgent", "calm"]


@pytest.fixture
def a_narrow_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUNDO_WINDOW", "3")


@pytest.mark.usefixtures("a_narrow_window")
def test_the_broker_holds_as_many_of_a_queue_as_the_window_says(stage: Stage) -> None:
    ids = stage.add("urgent", "it", count=10)
    wait_until(lambda: any(row["published_until"] for row in stage.records().values()), PATIENCE)
    assert sum(bool(stage.record(id)["published_until"]) for id in ids) == 3
    with CeleryWorker("-c", "1", "--pool", "solo"):
        wait_until(stage.ended, PATIENCE)
    assert stage.said("urgent", "it") == 10


def test_more_than_the_broker_is_to_hold_goes_through_whole(stage: Stage) -> None:
    assert httpx.post(f"{stage.server.url}/urgent/it", params={"count": 2500}, timeout=60).status_code == 200
    with CeleryWorker("-c", "4", "--pool", "threads"):
        wait_until(stage.ended, 60, every=0.2)
    assert stage.said("urgent", "it") == 2500
    assert {row["claim"] for row in stage.records().values()} == {1}
