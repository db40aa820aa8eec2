"""How far a task says it is: seldom, but the last of it always, and of no attempt but its own."""

import asyncio
import json
import math
import threading
from decimal import Decimal
from typing import Any

import pytest

from segundo import Retry, Segundo, current, task
from segundo.progress import Progress
from tests.support import wait_until_async
from tests.web.apps import ended, records

gate = threading.Event()


@pytest.fixture(autouse=True)
def closed_gate() -> None:
    gate.clear()


def progress() -> dict[str, Any] | None:
    """Of the only record."""
    (record,) = records()
    return None if record["progress"] is None else json.loads(record["progress"])


def say_in_a_burst(number: int = 1000) -> None:
    for done in range(1, number + 1):
        current().progress(done, number, f"file {done}")


@task
async def bursts() -> None:
    say_in_a_burst()
    await asyncio.to_thread(gate.wait, 20)


@task
def bursts_in_a_thread() -> None:
    say_in_a_burst()
    gate.wait(20)


@task
def bursts_and_ends() -> str:
    say_in_a_burst()
    return "done"


@task
async def bursts_and_fails() -> None:
    say_in_a_burst()
    raise ValueError


@task(retry=Retry(attempts=2, wait="constant", base=0))
async def says_nothing_the_second_time() -> None:
    if current().attempt == 1:
        current().progress(9, 10)
        raise ValueError
    await asyncio.to_thread(gate.wait, 20)


@task(timeout=0.05)
async def says_it_and_times_out() -> None:
    current().progress(1)
    await asyncio.sleep(60)


@task
async def says_it_from_everywhere() -> None:
    """From its asyncio tasks and threads, one after the other."""

    async def below() -> None:
        current().progress(2)

    current().progress(1)
    await asyncio.create_task(below())
    await asyncio.to_thread(lambda: current().progress(3))


left_behind: list[Any] = []


@task
async def leaves_itself_behind() -> None:
    left_behind.append(current())


@pytest.mark.parametrize("function", [bursts, bursts_in_a_thread])
async def test_of_a_burst_the_last_is_stored_and_few_before_it(segundo: Segundo, function: Any) -> None:
    commits = segundo.ledger.commits
    await segundo.submit(function)
    await wait_until_async(lambda: progress() == {"done": 1000, "total": 1000, "message": "file 1000"})
    gate.set()
    await ended(1)
    assert segundo.ledger.commits - commits <= 20  # a thousand were said


@pytest.mark.parametrize("function", [bursts_and_ends, bursts_and_fails])
async def test_the_last_is_stored_though_the_attempt_ends_right_after(
    segundo: Segundo, function: Any
) -> None:
    await segundo.submit(function)
    await ended(1)
    assert progress() == {"done": 1000, "total": 1000, "message": "file 1000"}


async def test_what_is_cut_off_keeps_its_last_progress(segundo: Segundo) -> None:
    await segundo.submit(says_it_and_times_out)
    await ended(1)
    assert progress() == {"done": 1}


async def test_it_is_said_from_every_thread_and_asyncio_task_of_the_attempt(segundo: Segundo) -> None:
    await segundo.submit(says_it_from_everywhere)
    await ended(1)
    assert progress() == {"done": 3}


async def test_another_attempt_begins_with_none(segundo: Segundo) -> None:
    await segundo.submit(says_nothing_the_second_time)
    await wait_until_async(lambda: records()[0]["claim"] == 2)
    assert progress() is None
    gate.set()
    await ended(1)
    assert progress() is None


async def test_whoever_speaks_after_the_end_is_told_and_changes_nothing(segundo: Segundo) -> None:
    await segundo.submit(leaves_itself_behind)
    await ended(1)
    with pytest.raises(RuntimeError, match="the attempt is over"):
        left_behind.pop().progress(1)
    assert progress() is None


async def test_an_attempt_leaves_no_report_behind(segundo: Segundo) -> None:
    await segundo.submit(bursts)
    await wait_until_async(progress)
    gate.set()
    await ended(1)
    runtime = segundo._life.runtime
    assert runtime is not None
    assert runtime._runner._reports._reports == {}
    await wait_until_async(lambda: not [task for task in asyncio.all_tasks() if "Reports" in repr(task)])


# What is no progress

WRONG: list[tuple[tuple[Any, ...], type[Exception], str]] = [
    ((-1,), ValueError, "done=-1 is not between 0 and"),
    ((math.nan,), ValueError, "done=nan is not between"),
    ((math.inf,), ValueError, "done=inf is not between"),
    ((10**400,), ValueError, "is not between"),
    ((1, math.nan), ValueError, "total=nan is not between"),
    ((1, -1), ValueError, "total=-1 is not between"),
    ((3, 2), ValueError, "done=3 is more than total=2"),
    (("3",), TypeError, "done is a number, not '3'"),
    ((True,), TypeError, "done is a number, not True"),
    ((None,), TypeError, "done is a number, not None"),
    ((Decimal(1),), TypeError, "done is a number, not Decimal"),
    ((1, "2"), TypeError, "total is a number, not '2'"),
    ((1, 2, 3), TypeError, "the message is a str, not int"),
    ((1, 2, "x" * 501), ValueError, "has 501 characters; at most 500"),
    ((1, 2, "\ud800"), ValueError, "no text that can be written down"),
]


@pytest.mark.parametrize(("said", "kind", "words"), WRONG, ids=[words for _, _, words in WRONG])
def test_what_is_no_progress_is_an_error_on_the_tasks_line(
    said: tuple[Any, ...], kind: type[Exception], words: str
) -> None:
    padded = (*said, None, None)[:3]
    with pytest.raises(kind) as error:
        Progress.of(*padded)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "said", [(0, None, None), (0, 0, None), (0.5, 1, ""), (3, 3, "x" * 500), (2**53, 2**53, "ñ")]
)
def test_what_is_written_down_is_read_as_it_was_said(said: tuple[Any, ...]) -> None:
    progress = Progress.of(*said)
    assert Progress.read(progress.text) == progress


@pytest.mark.parametrize(
    "text", [None, "", "{}", "[]", "null", '"half"', '{"done": -1}', '{"done": "x"}', "[" * 10_000]
)
def test_what_others_wrote_is_none_where_no_task_can_have_said_it(text: str | None) -> None:
    assert Progress.read(text) is None


def test_all_is_done_only_at_the_end() -> None:
    assert [Progress(done, 1000).percent for done in (0, 5, 999, 999.9, 1000)] == [0, 0, 99, 99, 100]
    assert [Progress(3).percent, Progress(0, 0).percent] == [None, None]
