"""`segundo ls` and `segundo show`: what they print, and that they leave the ledger as it is."""

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from segundo.ledger.sqlite import SQLiteLedger, questions, visitor
from segundo.ledger.sqlite.visitor import FileVisitor
from segundo.record import Record, State
from tests.cli.ledgers import ended, fill, one_of_each, queued, running
from tests.cli.terminal import Answer, segundo
from tests.ledger.suite import after, call

Inside = Callable[..., Answer]
LEDGER = Path("segundo.db")
LISTED = [
    *("id", "task", "queue", "state", "reason", "attempt", "claim", "failures", "crashes"),
    *("created_at", "run_at", "started_at", "finished_at", "key", "same_as", "retry_of"),
    *("progress", "waits_for"),
]


def listed(answer: Answer) -> list[str]:
    """The ids of `ls --json`."""
    assert answer.code == 0, answer.err
    return [json.loads(line)["id"] for line in answer.out.splitlines()]


# ls


def test_ls_lists_the_newest_first_and_says_when_there_may_be_more() -> None:
    newest = sorted(one_of_each().values(), key=lambda record: record.id, reverse=True)[:4]
    answer = segundo("ls", "--limit", 4)
    heading, *lines = answer.out.splitlines()
    assert heading.split() == ["ID", "STATE", "TRY", "AGE", "TASK", "NOTE"]
    assert [line.split()[1] for line in lines] == [record.state for record in newest]
    assert [record.id.startswith(line.split()[0]) for record, line in zip(newest, lines, strict=True)] == [
        True
    ] * 4
    assert answer.err == "the newest 4; --limit shows more\n"


def test_ls_as_json_prints_one_object_a_line_with_the_documented_fields() -> None:
    records = one_of_each()
    answer = segundo("ls", "--json")
    objects = [json.loads(line) for line in answer.out.splitlines()]
    assert [list(each) for each in objects] == [LISTED] * 6
    assert {each["state"]: each["id"] for each in objects} == {
        state.value: record.id for state, record in records.items()
    }
    failed = next(each for each in objects if each["state"] == "failed")
    assert (failed["reason"], failed["attempt"], failed["failures"]) == ("ValueError", 1, 1)
    assert failed["created_at"] <= failed["started_at"] <= failed["finished_at"]


@pytest.mark.parametrize("few", [visitor.FEW, 0], ids=["by its index", "by a walk"])
def test_ls_of_a_state_lists_that_state_alone(
    few: int, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visitor, "FEW", few)
    records = one_of_each()
    found = {state: listed(inside("ls", "--json", "--state", state)) for state in State}
    assert found == {state: [record.id] for state, record in records.items()}


def test_a_record_that_waits_for_another_is_listed_as_waiting(inside: Inside) -> None:
    async def story(ledger: SQLiteLedger) -> Record:
        return await queued(ledger, after=after((await queued(ledger)).id))

    record = fill(story)
    assert listed(inside("ls", "--json", "--state", "waiting")) == [record.id]


def test_ls_of_a_task_lists_that_task_alone_however_far_back(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visitor, "PAGE", 7)

    async def story(ledger: SQLiteLedger) -> list[Record]:
        rare = [await queued(ledger, task="rare")]
        await ledger.record([call(task="common") for _ in range(100)], owner="me")
        return [*rare, await queued(ledger, task="rare")]

    rare = sorted((record.id for record in fill(story)), reverse=True)
    assert listed(inside("ls", "--json", "--task", "rare")) == rare
    assert listed(inside("ls", "--json", "--task", "rare", "--limit", 1)) == rare[:1]
    assert listed(inside("ls", "--json", "--task", "rare", "--state", "failed")) == []
    assert len(listed(inside("ls", "--json", "--limit", 1000))) == 102


def test_the_table_fits_80_columns_and_keeps_the_end_of_a_long_name(inside: Inside) -> None:
    async def story(ledger: SQLiteLedger) -> None:
        await ended(
            ledger,
            State.FAILED,
            reason="TheServerSaidNoAndDidNotSayWhy",
            task="shop.emails:" + "x" * 90 + "_end",
        )
        await queued(ledger, task="two\nlines\x1b[2J", run_at=4e9)

    fill(story)
    answer = inside("ls")
    assert len(answer.out.splitlines()) == 3
    assert max(map(len, answer.out.splitlines())) <= 80
    assert "_end" in answer.out
    assert "\x1b" not in answer.out
    assert "o\\x0alines\\x1b[2J" in answer.out


def test_ls_of_an_empty_ledger_says_so(inside: Inside) -> None:
    async def story(ledger: SQLiteLedger) -> None:
        pass

    fill(story)
    assert inside("ls") == Answer(0, "", "no records\n")
    assert inside("ls", "--state", "failed") == Answer(0, "", "no such records\n")
    assert inside("ls", "--json") == Answer(0, "", "")


# show


def test_show_tells_everything_of_a_record() -> None:
    error = {
        "type": "shop.Refused",
        "message": "no \x1b[31mcredit",
        "notes": ["order 7"],
        "traceback": "Traceback (most recent call last):\n  File ...\nshop.Refused: no credit\n",
        "causes": [{"type": "KeyError", "message": "'card'", "notes": []}],
    }

    async def story(ledger: SQLiteLedger) -> Record:
        return await ended(
            ledger,
            State.FAILED,
            reason="Refused",
            error=json.dumps(error),
            task="shop:charge",
            arguments='{"order": {"id": 7, "to": "Zoë"}}',
            carried='{"tenant": "acme"}',
            queue="money",
            priority=8,
            attempts=5,
            key="order-7",
            retention=86400.0,
        )

    record = fill(story)
    answer = segundo("show", record.id)
    assert answer.code == 0
    for words in (
        *(record.id, "shop:charge", "failed: Refused", "money, priority 8", "1 of 5 (1 failure", "order-7"),
        *('"to": "Zoë"', '"tenant": "acme"', "1 d once ended", " ago)"),
        *(
            "shop.Refused: no \\x1b[31mcredit",
            "order 7",
            "caused by KeyError: 'card'",
            "  Traceback (most recent",
        ),
    ):
        assert words in answer.out
    assert "\x1b" not in answer.out


def test_show_names_what_a_record_waits_for(inside: Inside) -> None:
    async def story(ledger: SQLiteLedger) -> tuple[Record, Record]:
        before = await queued(ledger)
        return before, await queued(ledger, after=after(before.id))

    before, record = fill(story)
    assert f"waits for   {before.id}\n" in inside("show", record.id).out
    waiting = {
        one["id"]: one["waits_for"] for one in map(json.loads, inside("ls", "--json").out.splitlines())
    }
    assert waiting == {before.id: [], record.id: [before.id]}


def test_show_and_ls_say_that_a_record_waits_for_its_request(inside: Inside) -> None:
    async def story(ledger: SQLiteLedger) -> Record:
        await ledger.join("me")
        (record,) = await ledger.record([call(held=True)], owner="me")
        return record

    record = fill(story)
    assert "waits for   the end of its request\n" in inside("show", record.id).out
    assert json.loads(inside("ls", "--json").out)["waits_for"] == ["request"]


def test_what_was_cancelled_by_one_that_failed_waits_for_nothing_and_says_for_whom_it_did(
    inside: Inside,
) -> None:
    async def story(ledger: SQLiteLedger) -> tuple[Record, Record]:
        failed, live = await queued(ledger), await queued(ledger)
        waiting = await queued(ledger, after=after(failed.id, live.id))
        await ledger.cancel(failed.id)
        return failed, waiting

    failed, waiting = fill(story)
    shown = inside("show", waiting.id).out
    assert f"PredecessorFailed: it needs the success of {failed.id}, which ended without it" in shown
    assert "waits for" not in shown
    listed = map(json.loads, inside("ls", "--json").out.splitlines())
    assert [one["waits_for"] for one in listed] == [[], [], []]


def test_show_takes_the_beginning_of_an_id_as_long_as_it_is_unique(inside: Inside) -> None:
    async def story(ledger: SQLiteLedger) -> None:
        for id in ("aa11", "aa22", "aa221"):
            await queued(ledger, id=id)

    fill(story)
    assert inside("show", "aa1").out.startswith("aa11\n")
    assert inside("show", "aa22").out.startswith("aa22\n")  # the whole of one, though another goes on
    assert inside("show", "aa") == Answer(
        1, "", "segundo: several records have an id that begins with 'aa'; give more of it"
    )


@pytest.mark.parametrize("command", ["show", "retry", "cancel"])
@pytest.mark.parametrize("id", ["nope", ""])
def test_an_unknown_id_is_an_error(command: str, id: str, inside: Inside) -> None:
    one_of_each()
    assert inside(command, id) == Answer(1, "", f"segundo: no record has the id {id!r}")


# What looking does to the ledger: nothing


@pytest.mark.parametrize("command", [["ls"], ["show"], ["doctor"]], ids=" ".join)
def test_looking_changes_no_byte_and_joins_nothing(command: list[str], inside: Inside) -> None:
    records = one_of_each()
    before = hashlib.sha256(LEDGER.read_bytes()).digest()
    inside(*command, *([records[State.FAILED].id] if command == ["show"] else []))
    assert hashlib.sha256(LEDGER.read_bytes()).digest() == before
    assert [path.stat().st_size for path in Path().glob("*-wal")] in ([], [0])
    with FileVisitor(LEDGER.absolute()) as seen:
        assert [worker.id for worker in seen.workers()] == ["me"]


def test_looking_waits_for_nobody_who_writes(inside: Inside) -> None:
    records = one_of_each()
    with closing(sqlite3.connect(LEDGER, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        stranger.execute("DELETE FROM records")
        assert len(listed(inside("ls", "--json"))) == len(records)
        stranger.execute("ROLLBACK")


AS_SOMEBODY_ELSE = """
import os, sys
import segundo.cli.commands, rich.table, rich.console, rich.markup, encodings.idna
from segundo.cli import main
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
main()
"""


def test_who_may_only_read_can_look() -> None:
    """In a folder where this user can create nothing: not even the files that SQLite reads through."""
    records = one_of_each()
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder, "segundo.db")
        ledger.write_bytes(LEDGER.read_bytes())
        ledger.chmod(0o444)
        Path(folder).chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", AS_SOMEBODY_ELSE, "ls", "--json", "--ledger", ledger],
            env={name: value for name, value in os.environ.items() if not name.startswith("COV")},
            capture_output=True,
            text=True,
            timeout=30,
        )
        Path(folder).chmod(0o755)
    assert len(listed(Answer(done.returncode, done.stdout, done.stderr))) == len(records)


# Quick, however many there are


def test_a_read_that_takes_too_long_is_cut_into_shorter_ones() -> None:
    async def story(ledger: SQLiteLedger) -> None:
        await ledger.record([call() for _ in range(64)], owner="me")

    fill(story)
    with FileVisitor(LEDGER.absolute()) as seen:
        whole = [glimpse.id for glimpse in seen.walk()]
        interrupted = []
        # SQLite gives up each statement after so many steps: enough for a few rows.
        seen._connection.set_progress_handler(lambda: interrupted.append(1) or 1, 600)
        assert [glimpse.id for glimpse in seen.walk()] == whole
        assert [record.id for record in seen.records(state=None, task=None, limit=64)] == whole
        assert len(interrupted) > 2


def test_a_row_that_cannot_be_read_in_time_is_an_error() -> None:
    one_of_each()
    with FileVisitor(LEDGER.absolute()) as seen:
        seen._connection.set_progress_handler(lambda: 1, 5)
        with pytest.raises(visitor.TooLong):
            list(seen.walk())
        with pytest.raises(visitor.TooLong):
            seen.damage()


@pytest.mark.parametrize(
    "statement",
    [
        *(questions.FIND, questions.WALK, questions.WALK_FAILED, *questions.IN_STATE.values()),
        *(questions.LONGEST, questions.WORKERS, questions.ORPHANS),
    ],
)
def test_every_question_about_records_is_answered_by_an_index(statement: str) -> None:
    one_of_each()
    names = dict.fromkeys(("prefix", "before", "limit", "id"), "1")
    with closing(sqlite3.connect(LEDGER)) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", names)]
    assert [step for step in plan if "records" in step and "USING" not in step] == []


def test_a_running_record_is_shown_with_who_holds_it(inside: Inside) -> None:
    record = fill(running)
    assert "held by     me\n" in inside("show", record.id).out
