"""Rows whose columns hold what no Segundo writes: the file refuses them, or they stop nothing and nobody."""

import json
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import anyio.to_thread
import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI

from segundo import Segundo
from segundo.ledger.sqlite import SQLiteLedger
from segundo.record import Record
from tests.cli.conftest import inside as inside  # a fixture, brought here
from tests.cli.terminal import Answer
from tests.security.forging import forge, insert
from tests.support import wait_until_async
from tests.web.apps import LEDGER, running
from tests.web.tasks import events

NO_TEXT = b"\xff\xfe"
TEXTS = [
    *("task", "queue", "reason", "owner", "key", "same_as", "retry_of", "arguments", "carried", "result"),
    *("error", "progress", "wipe"),
]
BIGGEST, ENDLESS = 2**63 - 1, float("inf")
AT_THE_LIMIT: list[dict[str, Any]] = [
    *({"claim": number, "crashes": 0} for number in (BIGGEST, -BIGGEST)),
    *({"failures": number, "attempts": None} for number in (BIGGEST, BIGGEST - 1, -BIGGEST)),
    *({"crashes": number, "crash_limit": BIGGEST} for number in (BIGGEST, -BIGGEST)),
    *({"attempts": number} for number in (0, -1, BIGGEST)),
    *({"crash_limit": number} for number in (-1, BIGGEST)),
    *({"format": number} for number in (0, -1, 2, BIGGEST)),
    *({"run_at": moment} for moment in (-ENDLESS, ENDLESS, 1e300, 1e12)),
    *({"created_at": moment} for moment in (-ENDLESS, ENDLESS, 1e300, -1e12)),
    *({name: ENDLESS} for name in ("started_at", "timeout", "retention", "published_until")),
    *({"timeout": -1.0}, {"retention": -ENDLESS}, {"task": "no:such", "created_at": -ENDLESS}),
    {"state": "succeeded", "finished_at": ENDLESS, "retention": 1.0},
    {"state": "failed", "finished_at": -1e300},
]
NONSENSE = ["", "{", "null", "7", '"x"', "NaN", '{"x": Infinity}', '{"type": 7}', '"\\ud800"', "[" * 100_000]
NONSENSE += ['{"type": "x", "causes": 7}', '{"type": "x", "notes": [7]}', "9" * 5000, "\x1b[2J", "\0"]


def may_read() -> None: ...


def app() -> FastAPI:
    app = FastAPI()
    Segundo(app, status=APIRouter(prefix="/tasks", dependencies=[Depends(may_read)]))
    return app


Look = Callable[[list[str]], Awaitable[None]]


@pytest.fixture
def look(inside: Callable[..., Answer]) -> Look:
    """Everybody who looks at a ledger, and at these records of it, is told something and told it whole."""

    def at(ids: list[str]) -> None:
        assert inside("ls", "--limit", "1000").code == 0
        listed = inside("ls", "--json", "--limit", "1000")
        assert listed.code == 0
        found = [json.loads(line, parse_constant=pytest.fail)["id"] for line in listed.out.splitlines()]
        assert set(ids) <= set(found)
        for id in ids:
            assert inside("show", id).out.startswith(id)
        assert " records " in inside("doctor").out

    async def look(ids: list[str]) -> None:
        await anyio.to_thread.run_sync(at, ids)

    return look


async def work(client: httpx.AsyncClient, segundo: Segundo, ids: list[str]) -> None:
    """Others run, and every record can be asked for."""
    before = len(events())
    forge(arguments='{"event": "offered"}', priority=0)
    await wait_until_async(lambda: "offered" in events()[before:])
    for id in ids:
        answer = await client.get(f"/tasks/{id}")
        assert (answer.status_code, id) == (200, answer.json()["id"])
        assert isinstance(await segundo.find(id), Record)
    assert len(await segundo.ledger.select(limit=1000)) >= len(ids)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("priority", value) for value in ("urgent", 1.5, b"\1", 10, -1, None)),
        *(("state", value) for value in ("done", "", "Queued", 7, None)),
        *(("run_at", value) for value in ("tomorrow", None, float("nan"))),
        *(("claim", value) for value in ("one", 0.5, None)),
        *(("cancel_requested", value) for value in (2, "no")),
        ("format", "one"),
    ],
)
async def test_the_file_refuses_values_of_another_type_and_states_that_there_are_not(
    column: str, value: Any
) -> None:
    async with running(app()):
        with pytest.raises(sqlite3.IntegrityError):
            forge(**{column: value})


async def test_texts_that_are_no_text_stop_nobody(look: Look) -> None:
    it = app()
    async with running(it) as client:
        ids = [forge(**{column: NO_TEXT}) for column in TEXTS]
        ids += [forge(state="failed", finished_at=1.0, **{column: NO_TEXT}) for column in TEXTS]
        forge(id=NO_TEXT)
        forge(id=b"forged-\xff-suspect", crashes=1)
        insert("meta", {"name": "cancels", "value": NO_TEXT})
        insert("links", {"before": ids[0], "after": NO_TEXT, "on_failure": "cancel"})
        await work(client, it.state.segundo, ids)
        await look(ids)


async def test_a_process_whose_name_is_no_text_stops_no_rescue() -> None:
    ledger = SQLiteLedger(LEDGER)
    await ledger.open()
    dead = SQLiteLedger(LEDGER)
    await dead.open()
    await dead.join("dead")
    lost = forge(owner="dead", state="running", claim=1)
    await dead.close(dead=True)
    worker = {"pid": 1, "durability": "full", "started_at": 1.0}
    for name in ("id", "host", "durability"):
        insert("workers", {"id": name, "host": "here", **worker, name: NO_TEXT})
    for number in (-14, -15, -16, 0, 2**62):  # among them the bytes of the turns
        insert("workers", {"id": f"{number}", "host": "here", **worker, "number": number}, unchecked=True)
    assert [record.id for record in await ledger.rescue()] == [lost]
    assert [record.id for record in await ledger.select()] == [lost]
    await ledger.close()


async def test_rows_with_numbers_at_their_limits_stop_nobody(look: Look) -> None:
    it = app()
    async with running(it) as client:
        ids = [forge(**columns) for columns in AT_THE_LIMIT]
        ids += [forge(**{**columns, "task": "tests.web.tasks:fail"}) for columns in AT_THE_LIMIT]
        await work(client, it.state.segundo, ids)
        await work(client, it.state.segundo, ids)  # after what was claimed was settled
        await look(ids)


async def test_a_row_in_a_state_that_there_is_not_is_no_record_and_stops_nobody(
    look: Look,
) -> None:
    it = app()
    async with running(it) as client:
        strange = forge(unchecked=True, state="sleeping")
        known = forge(state="failed", finished_at=1.0)
        await work(client, it.state.segundo, [known])
        assert (await client.get(f"/tasks/{strange}")).status_code == 404
        await look([known])


async def test_payloads_that_are_no_json_are_shown_as_they_are(look: Look) -> None:
    it = app()
    columns = ("arguments", "carried", "result", "error", "progress")
    async with running(it) as client:
        values = [{column: text} for text in NONSENSE for column in columns]
        ids = [forge(state="failed", finished_at=1.0, **value) for value in values]
        await work(client, it.state.segundo, ids)
        await look(ids)


ODD_IDS = ['"', "\\", "'", "{}", "\\u0000", "x" * 100_000, "~~", " ", "%", "forged-' OR 1", ""]
NO_IDS = ["é", "a\nb", "\0", "a\0b", "\x7f", "\ufffd", "😀", b"\xff"]


async def test_a_record_runs_once_or_never_whatever_its_id() -> None:
    it = app()
    async with running(it):
        for id in (*ODD_IDS, *NO_IDS):
            forge(id=id)
        await wait_until_async(lambda: all_ended(it, ODD_IDS))
    assert events() == ["forged"] * len(ODD_IDS)
    async with running(it):  # a second process has no more to do with them
        await wait_until_async(lambda: it.state.segundo.ledger.commits > 0)
    assert events() == ["forged"] * len(ODD_IDS)


async def all_ended(it: FastAPI, ids: list[str]) -> bool:
    found = await it.state.segundo.ledger.select(ids=ids)
    return len(found) == len(ids) and all(record.state.terminal for record in found)
