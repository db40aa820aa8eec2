"""One attempt: what the task raised, how long it took, what it was told, and what the record says of it."""

import asyncio
import json
import threading
from typing import Any

import pytest

from segundo import Retry, RetryLater, Segundo, current, task
from tests.support import wait_until_async
from tests.web.apps import ended, messages, outcome, records
from tests.web.tasks import events, note

AGAIN = Retry(attempts=3, wait="constant", base=0)


# What a task may raise


class Refused(Exception):
    """An error of the user's own."""


class Abrupt(BaseException):
    """What `except Exception` does not catch."""


RAISED = {
    "ValueError": lambda: ValueError("no"),
    "Refused": lambda: Refused("no"),
    "Abrupt": lambda: Abrupt("no"),
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "CancelledError": asyncio.CancelledError,
    "GeneratorExit": GeneratorExit,
    "StopAsyncIteration": StopAsyncIteration,
}


@task
def raises(kind: str) -> None:
    raise RAISED[kind]()


@task
async def raises_async(kind: str) -> None:
    raise RAISED[kind]()


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("function", [raises, raises_async])
async def test_whatever_a_task_raises_fails_its_record_and_nothing_else(
    segundo: Segundo, function: Any, kind: str
) -> None:
    record = await outcome(segundo, function, kind)
    assert (record["state"], record["reason"], record["failures"]) == ("failed", kind, 1)
    await segundo.submit(note, "the app goes on")
    await ended(2)


@task
def stops() -> None:
    next(iter([]))


@task
async def stops_async() -> None:
    next(iter([]))


@pytest.mark.parametrize("function", [stops, stops_async])
async def test_a_stop_iteration_becomes_a_runtime_error_as_in_any_coroutine(
    segundo: Segundo, function: Any
) -> None:
    record = await outcome(segundo, function)
    assert (record["state"], record["reason"]) == ("failed", "RuntimeError")
    assert record["error"]["causes"][0]["type"] == "StopIteration"


@task
async def raises_in_detail() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise OSError(2, "second") from error
    except OSError:
        refused = Refused("third", 3)
        refused.add_note("a note")
        refused.add_note("another")
        raise refused  # noqa: B904  (the implicit cause is what is tested)


async def test_the_error_has_type_message_notes_causes_and_where_it_happened(segundo: Segundo) -> None:
    error = (await outcome(segundo, raises_in_detail))["error"]
    assert error["type"] == "tests.web.test_attempts.Refused"
    assert error["message"] == "('third', 3)"
    assert error["notes"] == ["a note", "another"]
    assert [(cause["type"], cause["message"]) for cause in error["causes"]] == [
        ("FileNotFoundError", "[Errno 2] second"),
        ("KeyError", "'first'"),
    ]
    assert "in raises_in_detail" in error["traceback"]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even this fails")


@task
async def raises_unspeakably() -> None:
    raise Unspeakable


@task
async def raises_at_length() -> None:
    raise ValueError("x" * 1_000_000)


@task
async def raises_what_is_no_unicode() -> None:
    raise ValueError("\ud800")


@task
async def raises_itself() -> None:
    error = ValueError("its own cause")
    error.__cause__ = error
    raise error


@pytest.mark.parametrize(
    "function", [raises_unspeakably, raises_at_length, raises_what_is_no_unicode, raises_itself]
)
async def test_an_error_that_is_hard_to_describe_is_described_all_the_same(
    segundo: Segundo, function: Any
) -> None:
    record = await outcome(segundo, function)
    assert record["state"] == "failed"
    assert record["error"]["type"]
    assert len(json.dumps(record["error"])) < 100_000


async def test_a_failure_is_logged_with_its_traceback(
    segundo: Segundo, caplog: pytest.LogCaptureFixture
) -> None:
    record = await outcome(segundo, raises_in_detail)
    await wait_until_async(lambda: messages(caplog, "ERROR"))
    (error,) = messages(caplog, "ERROR")
    assert f"raises_in_detail {record['id']} failed" in error
    assert "in raises_in_detail" in error


@task
async def returns_what_no_json_is() -> Any:
    return object()


@task
async def returns_what_its_annotation_denies() -> int:
    return "a text"  # type: ignore[return-value]  # what is tested


@pytest.mark.parametrize("function", [returns_what_no_json_is, returns_what_its_annotation_denies])
async def test_a_result_that_cannot_be_encoded_is_a_failure_that_is_never_tried_again(
    segundo: Segundo, function: Any
) -> None:
    record = await outcome(segundo, function)
    assert (record["state"], record["reason"], record["result"]) == ("failed", "ResultError", None)


@task
async def returns_what_is_defined_below() -> "Below":
    return Below(7)


class Below:
    """Not a model: only its own annotation says how it is encoded."""

    def __init__(self, number: int) -> None:
        self.number = number

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(
            lambda number: cls(number),
            core_schema.int_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.number),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Below) and other.number == self.number

    __hash__ = None  # type: ignore[assignment]  # as for any mutable value


async def test_a_result_whose_type_is_defined_below_the_task_is_encoded_by_it(segundo: Segundo) -> None:
    assert (await outcome(segundo, returns_what_is_defined_below))["result"] == 7


def returns_something() -> int:
    return 7


async def test_a_plain_functions_result_is_dropped(segundo: Segundo) -> None:
    assert (await outcome(segundo, returns_something))["result"] is None


# Again


@task(retry=AGAIN)
async def fails_twice() -> int:
    note(f"attempt {current().attempt}")
    if current().attempt < 3:
        raise OSError
    return current().attempt


@task(retry=AGAIN)
def fails_always() -> None:
    note(f"attempt {current().attempt}")
    raise OSError


@task(retry=Retry(attempts=3, on=(OSError,), give_up_on=(FileNotFoundError,), base=0))
async def gives_up() -> None:
    note(f"attempt {current().attempt}")
    raise FileNotFoundError


async def test_a_task_runs_again_until_it_succeeds(segundo: Segundo) -> None:
    record = await outcome(segundo, fails_twice)
    assert (record["state"], record["result"], record["failures"], record["claim"]) == ("succeeded", 3, 2, 3)
    assert events() == ["attempt 1", "attempt 2", "attempt 3"]


async def test_a_task_whose_attempts_are_spent_has_failed(segundo: Segundo) -> None:
    record = await outcome(segundo, fails_always)
    assert (record["state"], record["reason"], record["failures"]) == ("failed", "OSError", 3)
    assert events() == ["attempt 1", "attempt 2", "attempt 3"]


async def test_an_error_that_is_given_up_on_is_not_tried_again(segundo: Segundo) -> None:
    record = await outcome(segundo, gives_up)
    assert (record["state"], record["reason"], record["failures"]) == ("failed", "FileNotFoundError", 1)
    assert events() == ["attempt 1"]


@task(retry=Retry(attempts=2, on=(), wait="constant", base=3600))
async def asks_for_later() -> None:
    note(f"attempt {current().attempt}")
    raise RetryLater(0)


@task
def asks_for_later_without_a_policy() -> None:
    raise RetryLater(0)


async def test_retry_later_runs_again_when_it_says_and_spends_an_attempt(segundo: Segundo) -> None:
    record = await outcome(segundo, asks_for_later)
    assert events() == ["attempt 1", "attempt 2"]
    assert (record["state"], record["reason"], record["failures"]) == ("failed", "RetryLater", 2)


async def test_retry_later_of_a_task_with_one_attempt_fails_it(segundo: Segundo) -> None:
    record = await outcome(segundo, asks_for_later_without_a_policy)
    assert (record["state"], record["reason"]) == ("failed", "RetryLater")


@task(retry=Retry(attempts=3, wait=lambda failures: 1 / 0))
async def cannot_say_when() -> None:
    raise OSError


async def test_a_wait_function_that_fails_fails_the_record_and_names_both(segundo: Segundo) -> None:
    record = await outcome(segundo, cannot_say_when)
    assert (record["state"], record["reason"]) == ("failed", "ZeroDivisionError")
    assert record["error"]["causes"][0]["type"] == "OSError"


@task(retry=Retry(attempts=2, wait="constant", base=3600, jitter=False))
async def fails_and_waits() -> None:
    raise OSError("not now")


async def test_a_record_that_waits_for_its_next_attempt_says_why_and_until_when(segundo: Segundo) -> None:
    await segundo.submit(fails_and_waits)
    await wait_until_async(lambda: records()[0]["failures"] == 1)
    (record,) = records()
    assert (record["state"], record["reason"]) == ("queued", "OSError")
    assert record["run_at"] - record["created_at"] == pytest.approx(3600, abs=60)
    assert json.loads(record["error"])["message"] == "not now"


# Timeouts


@task(timeout=0.05)
async def sleeps() -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        note(f"cancelled: {current().cancelled}")
        raise


@task(timeout=0.05, retry=AGAIN)
async def sleeps_at_first() -> str:
    if current().attempt == 1:
        await asyncio.sleep(60)
    return "in time"


@task(timeout=0.05)
async def fails_when_it_is_cancelled() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        raise OSError("while cleaning up")


async def test_an_async_task_is_cancelled_at_its_timeout(segundo: Segundo) -> None:
    record = await outcome(segundo, sleeps)
    assert (record["state"], record["reason"]) == ("failed", "TimedOut")
    assert "0.05 s" in record["error"]["message"]
    assert events() == ["cancelled: True"]


async def test_a_timeout_may_be_tried_again_like_any_error(segundo: Segundo) -> None:
    record = await outcome(segundo, sleeps_at_first)
    assert (record["state"], record["failures"], record["result"]) == ("succeeded", 1, "in time")


async def test_a_task_that_fails_as_its_timeout_cancels_it_has_timed_out_by_that_cause(
    segundo: Segundo,
) -> None:
    record = await outcome(segundo, fails_when_it_is_cancelled)
    assert (record["state"], record["reason"]) == ("failed", "TimedOut")
    assert record["error"]["causes"][0]["message"] == "while cleaning up"


gate = threading.Event()


@task(timeout=0.05)
def runs_on() -> str:
    note("started")
    while not current().cancelled:
        gate.wait(0.01)
    note("told to end")
    gate.wait(20)
    note("ended")
    return "too late"


async def test_a_def_task_past_its_timeout_runs_on_and_has_timed_out_when_it_ends(segundo: Segundo) -> None:
    gate.clear()
    await segundo.submit(runs_on)
    await wait_until_async(lambda: events() == ["started", "told to end"])
    assert records()[0]["state"] == "running"  # nobody can stop a thread, so its record says what is true
    gate.set()
    (record,) = await ended(1)
    assert (record["state"], record["reason"], record["result"]) == ("failed", "TimedOut", None)
    assert events() == ["started", "told to end", "ended"]
