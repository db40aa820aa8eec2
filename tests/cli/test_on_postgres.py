"""The command line on a ledger on a server: the same commands, the same answers."""

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest

from segundo.ledger.postgres import PostgresLedger
from segundo.record import Record, State
from tests.cli.ledgers import fill, queued
from tests.cli.terminal import Answer, Worker
from tests.ledger.suite import PostgresStore, call, settlement
from tests.postgres import Schemas
from tests.support import Server, wait_until

Inside = Callable[..., Answer]


@pytest.fixture
async def ledger(url: str) -> PostgresLedger:
    ledger = PostgresLedger(url)
    await ledger.open()
    await ledger.join("me")
    return ledger


@pytest.fixture
def inside(inside: Inside, url: str, monkeypatch: pytest.MonkeyPatch) -> Inside:
    monkeypatch.setenv("SEGUNDO_LEDGER", url)
    return inside


async def there(inside: Inside, *arguments: object) -> Answer:
    """Typed beside the test's event loop: a command has one of its own."""
    return await asyncio.to_thread(inside, *arguments)


def test_a_ledger_that_is_not_there_is_an_error_and_is_not_made(inside: Inside, schemas: Schemas) -> None:
    fresh = schemas.fresh()
    answer = inside("ls", "--ledger", fresh)
    assert (answer.code, answer.out) == (1, "")
    assert "segundo migrate" in answer.err
    assert inside("migrate", "--ledger", fresh).out.endswith("now at version 1\n")
    assert inside("migrate", "--ledger", fresh).out.endswith("already at version 1\n")
    assert inside("ls", "--ledger", fresh).err == "no records\n"


async def test_records_are_listed_shown_cancelled_retried_and_pruned(
    inside: Inside, ledger: PostgresLedger
) -> None:
    (ended,) = await ledger.record([call(task="mails:send")], owner="me")
    (running,) = await ledger.claim("me", limit=1)
    assert await ledger.settle([settlement(running, State.FAILED, reason="ValueError")]) == [True]
    (queued,) = await ledger.record([call(task="files:sort", delay=3600)], owner="me")
    (waiting,) = await ledger.record([call(held=True)], owner="me")
    await ledger.close(dead=True)
    listed = [json.loads(line) for line in (await there(inside, "ls", "--json")).out.splitlines()]
    assert [one["id"] for one in listed] == [waiting.id, queued.id, ended.id]
    assert listed[0]["waits_for"] == ["request"]
    (failed,) = map(json.loads, (await there(inside, "ls", "--json", "--state", "failed")).out.splitlines())
    assert failed["task"] == "mails:send"
    assert "files:sort" in (await there(inside, "ls", "--task", "files:sort")).out
    assert "ValueError" in (await there(inside, "show", ended.id[:-4])).out
    assert (await there(inside, "cancel", queued.id)).out == f"cancelled {queued.id}\n"
    again = (await there(inside, "retry", ended.id)).out.strip()
    assert json.loads((await there(inside, "ls", "--json", "--state", "queued")).out)["id"] == again
    assert (await there(inside, "prune", "--older-than", "0s")).out == "deleted 2 records\n"


async def test_doctor_examines_the_server_the_clock_and_the_processes(
    inside: Inside, ledger: PostgresLedger
) -> None:
    await ledger.record([call(held=True)], owner="me")
    answer = await there(inside, "doctor")
    assert answer.code == 0, answer
    for words in ("PostgreSQL 1", "the server's and this machine's agree", "1 alive", "1 waiting"):
        assert words in answer.out
    await ledger.close(dead=True)


async def test_doctor_finds_a_host_whose_clock_is_ahead_by_what_it_has_recorded(
    inside: Inside, ledger: PostgresLedger
) -> None:
    for seconds, found in ((-3600, False), (3600, True)):  # a slow request is nothing to warn of
        id = f"{int((time.time() + seconds) * 1e6):014x}{'0' * 22}"
        await ledger.record([call(id=id)], owner="me")
        said = " ".join((await there(inside, "doctor")).out.split())
        assert (f"{id} was recorded" in said) is found, said
    assert "host is ahead" in said
    await ledger.close(dead=True)


async def test_doctor_says_that_a_server_is_not_there(inside: Inside) -> None:
    answer = await there(inside, "doctor", "--ledger", "postgresql://postgres@127.0.0.1:1/postgres")
    assert answer.code == 1
    assert "cannot be opened" in answer.out


def states(schemas: Schemas, url: str) -> list[str]:
    return [state for (state,) in schemas.rows(url, "SELECT state FROM records ORDER BY id")]


def events(word: str) -> list[str]:
    lines = Path("events.txt").read_text().splitlines()
    return [line.split()[-1] for line in lines if line.split()[1] == word]


def test_servers_and_a_worker_on_one_ledger_run_each_call_once(
    url: str, schemas: Schemas, tmp_path: Path
) -> None:
    shutil.copy(Path(__file__).with_name("app.py"), "main.py")
    names = [f"file-{number}" for number in range(30)]
    for name in names:
        Path(name).touch()
    where = {"SEGUNDO_LEDGER": url}
    server = Server("main:app", cwd=tmp_path, env=where, options=["--workers", "2"])
    with server, Worker("main:app", env=where) as worker, httpx.Client(base_url=server.url) as client:
        for name in names:
            for kind in ("until", "plain"):
                client.post(f"/{kind}/{name}").raise_for_status()
        wait_until(lambda: states(schemas, url) == ["succeeded"] * 60, 30)
        worker.terminate()
        assert worker.wait() == 0
    assert sorted(events("begins")) == sorted(events("ends")) == sorted(2 * names)
    assert schemas.rows(url, "SELECT * FROM workers") == []  # all have left in good order


async def rescued(url: str) -> Sequence[Record]:
    """By somebody who has been in touch with the server for long enough."""
    ledger = PostgresLedger(url, patience=0)
    await ledger.open()
    try:
        return await ledger.rescue()
    finally:
        await ledger.close()


def test_what_a_server_was_killed_with_is_run_by_a_worker(url: str, schemas: Schemas, tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("app.py"), "main.py")
    where = {"SEGUNDO_LEDGER": url}
    with Server("main:app", cwd=tmp_path, env=where) as server:
        httpx.post(f"{server.url}/until/late").raise_for_status()
        httpx.post(f"{server.url}/plain/late").raise_for_status()
        wait_until(lambda: Path("events.txt").read_text().count("begins") == 2)
        server.kill()
    Path("late").touch()
    PostgresStore(url).bury(*(id for (id,) in schemas.rows(url, "SELECT id FROM workers")))
    assert sorted(record.state for record in asyncio.run(rescued(url))) == ["failed", "queued"]
    with Worker("main:app", env=where):
        wait_until(lambda: sorted(states(schemas, url)) == ["failed", "succeeded"], 30)


def test_an_app_that_starts_on_a_server_names_the_file_that_it_left_records_in(url: str) -> None:
    shutil.copy(Path(__file__).with_name("app.py"), "main.py")
    fill(queued)
    with Worker("main:app", env={"SEGUNDO_LEDGER": url}) as worker:
        assert worker.said("segundo.db NEW takes them here")
