"""Rows that somebody else wrote into the file: only what the app offers is called, the rest ends or waits."""

import json
import logging
import sys
from typing import Any

import pytest
from fastapi import FastAPI

from segundo import Segundo
from tests.security.forging import forge
from tests.support import wait_until_async
from tests.web.apps import ended, records, running
from tests.web.tasks import events

NEVER_IMPORTED = "this"  # of the standard library; an import of it is seen, it prints
FOREIGN = [
    *("os:system", "subprocess:run", "builtins:eval", "builtins:exec", "__main__:main", "pickle:loads"),
    *(f"{NEVER_IMPORTED}:d", "antigravity:fly", "pip:main", "segundo.cli:main", "segundo.app:Segundo"),
    *("tests.web.tasks:Path", "tests.web.tasks:task", "tests.web.tasks:EVENTS.open", "tests.web.tasks:"),
    *("tests.web.tasks:note.__globals__", "tests.web.tasks:__builtins__", "tests.web.tasks.note", ":note"),
    *("tests.web.tasks:note:note", "../tests/web/tasks:note", "tests..tasks:note", ".tasks:note", "", ":"),
    *(
        "tests.web.tasks:note\n",
        "tests.web.tasks:note\0",
        "x" * 100_000,
        "\u202etests:note",
        "tests.web.tasks:ｎote",
    ),
]
WRONG_ARGUMENTS = [
    *("", "null", "[]", "1", '"x"', "{", '{"event": 1}', '{"event": NaN}', '{"event": "x", "more": 1}', "{}"),
    *('{"event": {"not": "a text"}}', '{"event": "x", "(unset)": [[["event"], ["x"]]]}', '{"(unset)": 7}'),
    *('{"event": ' * 100_000, '{"event": ' + "[" * 100_000 + "]" * 100_000 + "}", '{"event": "\\ud800"}'),
    *(
        '{"event": "x", "(unset)": [[[], []]]}',
        '{"event": "x", "(unset)": [[[0, "a"], ["b"]]]}',
        b"\xff\xfe",
        7,
    ),
]
WRONG_COLUMNS: list[dict[str, Any]] = [
    *({"format": 2}, {"format": -1}, {"format": 0}, {"format": 2**62}),
    *({"carried": value} for value in ("[]", "7", "{", '"x"', "", b"\xff")),
    {"arguments": None},
]


def app() -> FastAPI:
    app = FastAPI()
    Segundo(app)
    return app


async def test_a_name_that_the_app_does_not_offer_calls_nothing_imports_nothing_and_stops_nobody() -> None:
    loaded = NEVER_IMPORTED in sys.modules
    async with running(app()):
        for name in FOREIGN:
            forge(task=name)
        forge(arguments='{"event": "offered"}')
        await wait_until_async(lambda: events() == ["offered"])
        await wait_until_async(lambda: reasons().count("UnknownTask") == len(FOREIGN))
    assert (NEVER_IMPORTED in sys.modules) is loaded
    assert "antigravity" not in sys.modules
    assert events() == ["offered"]


def reasons() -> list[str]:
    return [record["reason"] for record in records()]


async def test_arguments_that_do_not_fit_end_their_record_and_no_other() -> None:
    async with running(app()):
        for arguments in WRONG_ARGUMENTS:
            forge(arguments=arguments)
        forge(arguments='{"event": "offered"}')
        await ended(len(WRONG_ARGUMENTS) + 1)
    assert reasons().count("PayloadError") == len(WRONG_ARGUMENTS)
    assert events() == ["offered"]


async def test_a_format_or_a_carried_value_that_is_nonsense_ends_its_record_and_no_other() -> None:
    async with running(app()):
        for columns in WRONG_COLUMNS:
            forge(**columns)
        forge(arguments='{"event": "offered"}')
        await ended(len(WRONG_COLUMNS) + 1)
    assert reasons().count("PayloadError") == len(WRONG_COLUMNS)
    assert events() == ["offered"]


async def test_huge_arguments_end_their_record_and_no_other() -> None:
    async with running(app()):
        forge(arguments=json.dumps({"more": "x" * 4 * 2**20}))
        forge(arguments='{"event": "offered"}')
        await ended(2)
    assert sorted(map(str, reasons())) == ["None", "PayloadError"]


async def test_no_line_of_the_log_begins_with_what_a_name_says(caplog: pytest.LogCaptureFixture) -> None:
    """A name with line breaks in it could pretend to be an entry of its own."""
    caplog.set_level(logging.DEBUG)
    async with running(app()):
        forge(task="x\nCRITICAL forged", created_at=0.0)
        (record,) = await ended(1)
    assert record["reason"] == "UnknownTask"
    lines = [line for entry in caplog.records for line in entry.getMessage().splitlines()]
    assert not [line for line in lines if line.startswith("CRITICAL forged")]
