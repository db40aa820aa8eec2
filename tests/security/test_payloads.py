"""Whatever stands where a payload should: it is read as the annotations say, or it is a PayloadError."""

import datetime
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from segundo.codec import Arguments, Value
from segundo.errors import PayloadError
from tests.support import ROOT


class Item(BaseModel):
    name: str = "x"
    tags: list[str] = []
    part: "Item | None" = None


def work(
    item: Item,
    day: datetime.date | None = None,
    *rest: int,
    flags: dict[str, bool] | None = None,
    **more: Any,
) -> None: ...


ARGUMENTS = Arguments(work)
VALUES = [Value(annotation) for annotation in (Item, list[Item], bytes, Any, dict[str, datetime.date])]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
STEPS = st.lists(
    st.sampled_from(["item", "part", "tags", "name", "rest", "flags"]) | st.integers(-2, 3), max_size=4
)
NEARLY = st.fixed_dictionaries(
    {"item": st.fixed_dictionaries({}, optional={"name": JSON, "tags": JSON, "part": JSON}) | JSON},
    optional={
        **dict.fromkeys(("day", "*rest", "rest", "flags", "**more", "more"), JSON),
        "(unset)": st.lists(st.tuples(STEPS, STEPS), max_size=3) | JSON,
    },
)
PAYLOADS = st.text() | st.binary() | (NEARLY | JSON).map(json.dumps)


@settings(max_examples=300)
@given(payload=PAYLOADS)
def test_forged_arguments_fit_or_are_a_payload_error(payload: Any) -> None:
    try:
        args, kwargs = ARGUMENTS.decode(payload)
    except PayloadError:
        return
    assert isinstance(args[0] if args else kwargs["item"], Item)


@settings(max_examples=200)
@given(payload=PAYLOADS, value=st.sampled_from(VALUES))
def test_a_forged_result_fits_or_is_a_payload_error(payload: Any, value: Value) -> None:
    try:
        value.decode(payload)
    except PayloadError:
        return


@pytest.mark.parametrize("depth", [100, 10_000, 1_000_000])
def test_depth_without_end_is_a_payload_error(depth: int) -> None:
    deep = '{"part":' * depth
    for payload in (
        deep,
        f'{{"item":{deep}',
        f'{{"item":{deep}null{"}" * depth}}}',
        "[" * depth + "]" * depth,
    ):
        try:
            ARGUMENTS.decode(payload)
        except PayloadError:
            continue


MILLION = 1_000_000


def more(values: str) -> str:
    """Arguments among which are these, of any type."""
    return '{"item":{},"**more":{"x":[' + values + "]}}"


def heavy() -> Iterator[str]:
    yield more("9" * MILLION)
    yield more(("9" * 4000 + ",") * 400 + "9")
    yield more("1e999999999,0." + "9" * MILLION)
    yield more("NaN,Infinity,-Infinity")
    yield '{"item":{},' + '"day":null,' * (MILLION // 10) + '"day":null}'  # one key, again and again
    yield '{"item":{},"**more":{' + "".join(f'"{n}":1,' for n in range(MILLION // 10)) + '"x":1}}'
    yield '{"item":{"tags":[' + "1," * (MILLION // 2) + "1]}}"  # half a million values of the wrong type
    yield '{"item":{},"(unset)":[' + "[[],[]]," * (MILLION // 10) + "[[],[]]]}"
    yield '{"item":{"name":"' + r"\ud800" * (MILLION // 6) + '"}}'
    yield '{"item":' + '{"part":' * MILLION
    yield more("1," * 20 * MILLION + "1")  # larger than anything that is recorded


def read_each(seconds: float, memory: int) -> None:
    """Read each in so much processor time, and all in so much memory; else the kernel ends this process."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    for number, payload in enumerate(heavy()):
        print(number, payload[:50], flush=True)
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        with suppress(PayloadError):
            ARGUMENTS.decode(payload)


def test_no_payload_takes_long_or_much_memory_to_be_read() -> None:
    program = "from tests.security.test_payloads import read_each; read_each(4.0, 2**30); print('all')"
    reading = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (reading.returncode, reading.stdout.splitlines()[-1:], reading.stderr) == (0, ["all"], "")
