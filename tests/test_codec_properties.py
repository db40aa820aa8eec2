"""The codec, for any annotation, any value and any text: the same value, or an error with a name."""

import functools
import inspect
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, Optional, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydantic import BaseModel, ConfigDict, Field, ImportString, SecretStr
from typing_extensions import TypedDict  # typing's own will do from Python 3.12 on

from segundo.codec import Arguments, Value
from segundo.errors import ArgumentError, PayloadError, ResultError
from tests.shape import shape

T = TypeVar("T")

# Making a codec for an annotation takes milliseconds the first time, so time says nothing here.
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Shade(Enum):
    DARK = "d"
    LIGHT = "l"


class Crate(BaseModel, Generic[T]):
    # How its bytes and its nan are written is a model's own affair: by default not every one survives.
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings")

    content: T
    label: str = ""
    weight: float | None = None


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str = "a"


class Node(BaseModel):
    name: str
    below: list["Node"] = []


@dataclass
class Box(Generic[T]):
    content: T
    size: int = 0


@dataclass(eq=False)
class Tag:
    name: str


class Movie(TypedDict, total=False):
    title: str
    year: int


class Pair(NamedTuple):
    left: int
    right: bytes


TEXT = st.text(max_size=8)
OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
PLAIN_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
NODES = st.recursive(
    st.builds(Node, name=TEXT),
    lambda inner: st.builds(Node, name=TEXT, below=st.lists(inner, max_size=2)),
    max_leaves=4,
)
# An annotation, and values that it describes and that JSON can hold.
Typed = tuple[Any, SearchStrategy[Any]]
HASHABLE: list[Typed] = [
    (str, TEXT),
    (int, st.integers()),
    (bool, st.booleans()),
    (float, st.floats()),
    (bytes, st.binary(max_size=8)),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (UUID, st.uuids()),
    (date, st.dates()),
    (datetime, st.datetimes() | st.datetimes(timezones=OFFSETS)),
    (time, st.times() | st.times(timezones=OFFSETS)),
    (timedelta, st.timedeltas()),
    (Path, st.from_regex(r"[a-z/.ñ]{1,9}", fullmatch=True).map(Path)),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Shade, st.sampled_from(Shade)),
]
LEAVES: list[Typed] = [
    *HASHABLE,
    (None, st.none()),
    (Any, PLAIN_JSON),
    (Literal["a", 3], st.sampled_from(["a", 3])),
    (Node, NODES),
    (Open, st.dictionaries(st.sampled_from("xyz"), PLAIN_JSON).map(lambda extra: Open(**extra))),
    (Tag, st.builds(Tag, TEXT)),
    (Movie, st.fixed_dictionaries({}, optional={"year": st.integers(), "title": TEXT})),
    (Pair, st.builds(Pair, st.integers(), st.binary(max_size=8))),
    (Annotated[int, Field(gt=3)], st.integers(4)),
]


def containers(inner: SearchStrategy[Typed]) -> SearchStrategy[Typed]:
    keys = st.sampled_from(HASHABLE)
    return st.one_of(
        inner.map(lambda it: (list[it[0]], st.lists(it[1], max_size=3))),
        inner.map(lambda it: (tuple[it[0], ...], st.lists(it[1], max_size=3).map(tuple))),
        inner.map(lambda it: (union(it[0], None), st.none() | it[1])),
        inner.map(lambda it: (Crate[it[0]], crates(*it))),
        inner.map(lambda it: (Box[it[0]], st.builds(Box, it[1], st.integers()))),
        keys.map(lambda it: (set[it[0]], st.sets(it[1], max_size=3))),
        keys.map(lambda it: (frozenset[it[0]], st.frozensets(it[1], max_size=3))),
        st.tuples(keys, inner).map(
            lambda it: (dict[it[0][0], it[1][0]], st.dictionaries(it[0][1], it[1][1], max_size=3))
        ),
        st.tuples(inner, inner).map(lambda it: (tuple[it[0][0], it[1][0]], st.tuples(it[0][1], it[1][1]))),
    )


def crates(annotation: Any, contents: SearchStrategy[Any]) -> SearchStrategy[Any]:
    some = st.fixed_dictionaries(
        {"content": contents}, optional={"label": TEXT, "weight": st.none() | st.floats(0, 9)}
    )
    return some.map(lambda fields: Crate[annotation].model_construct(**fields))  # as it is, not validated


DESCRIBED = st.recursive(st.sampled_from(LEAVES), containers, max_leaves=4)


@st.composite
def described_values(draw: st.DrawFn) -> tuple[Any, Any]:
    annotation, values = draw(DESCRIBED)
    return annotation, draw(values)


# Values that look like what many annotations describe, and are something else.
MISFITS = st.one_of(
    DESCRIBED.flatmap(lambda it: it[1]),
    st.text(st.characters(), max_size=4),
    st.decimals(),
    st.complex_numbers(),
    st.times(timezones=st.just(ZoneInfo("Europe/Madrid"))),
    st.datetimes(timezones=st.sampled_from([ZoneInfo("Europe/Madrid"), timezone(timedelta(seconds=1)), UTC])),
    st.builds(SecretStr, TEXT),
    st.builds(type("Names", (str,), {}), TEXT),
    st.builds(type("Rows", (list,), {}), st.lists(st.integers(), max_size=2)),
    st.builds(bytearray, st.binary(max_size=4)),
    st.just(object()),
    st.just(len),
)
MIXED_UNIONS = st.lists(DESCRIBED, min_size=2, max_size=3).map(
    lambda some: (functools.reduce(union, (each[0] for each in some)), st.one_of(*(each[1] for each in some)))
)


def union(one: Any, other: Any) -> Any:
    return Optional[one] | Optional[other]  # noqa: UP045  (None | None fails)


def taking(annotation: Any) -> Callable[..., Any]:
    def function(it: Any) -> None: ...

    function.__annotations__ = {"it": annotation}
    return function


def comes_back(annotation: Any, value: Any) -> Any:
    codec = Arguments(taking(annotation))
    return codec.decode(codec.encode((value,), {}))[1]["it"]


@relaxed
@given(described_values())
def test_every_value_that_its_annotation_describes_comes_back_as_it_was(described: tuple[Any, Any]) -> None:
    annotation, value = described
    assert shape(comes_back(annotation, value)) == shape(value)


@relaxed
@given(st.one_of(DESCRIBED, MIXED_UNIONS), st.data())
def test_any_other_value_comes_back_as_it_was_or_is_refused(described: Typed, data: st.DataObject) -> None:
    annotation, values = described
    value = data.draw(values | MISFITS)
    try:
        back = comes_back(annotation, value)
    except ArgumentError:
        return
    assert shape(back) == shape(value)


@relaxed
@given(st.one_of(DESCRIBED, MIXED_UNIONS), st.data())
def test_any_result_comes_back_as_it_was_or_is_refused(described: Typed, data: st.DataObject) -> None:
    annotation, values = described
    value = data.draw(values | MISFITS)
    codec = Value(annotation)
    try:
        payload = codec.encode(value)
    except ResultError:
        return
    assert shape(codec.decode(payload)) == shape(value)


@relaxed
@given(st.sets(st.sampled_from(["name", "price", "tags"])))
def test_a_partial_update_stays_the_one_it_was(names: set[str]) -> None:
    class Patch(BaseModel):
        name: str | None = None
        price: float | None = None
        tags: list[str] = []

    patch = Patch(**{name: Patch().model_dump()[name] for name in names})
    for annotation, value, find in (
        (Patch, patch, lambda it: it),
        (dict[int, list[Patch]], {1: [], 2: [Patch(), patch]}, lambda it: it[2][1]),
    ):
        assert find(comes_back(annotation, value)).model_fields_set == names


# --- binding: as Python itself would


def no_parameters() -> Any:
    return ()


def simple(a: int, b: int = 2) -> Any:
    return a, b


def positional_only(a: int, b: int = 2, /, c: int = 3) -> Any:
    return a, b, c


def optional_positional(a: int = 1, b: int = 2, /) -> Any:
    return a, b


def keyword_only(a: int, *, b: int, c: int = 3) -> Any:
    return a, b, c


def many(a: int, b: int = 2, *rest: int, c: int = 3) -> Any:
    return a, b, rest, c


def anything(*args: int, **kwargs: int) -> Any:
    return args, kwargs


def shadowed(a: int, /, b: int = 2, **more: int) -> Any:
    return a, b, more


def all_kinds(a: int, /, b: int = 2, *rest: int, c: int, d: int = 4, **more: int) -> Any:
    return a, b, rest, c, d, more


FUNCTIONS = [
    no_parameters,
    simple,
    positional_only,
    optional_positional,
    keyword_only,
    many,
    anything,
    shadowed,
    all_kinds,
]


@relaxed
@given(
    st.sampled_from(FUNCTIONS),
    st.lists(st.integers(), max_size=4),
    st.dictionaries(st.sampled_from(["a", "b", "c", "d", "rest", "more", "e f"]), st.integers(), max_size=4),
)
def test_a_call_is_recorded_exactly_when_python_would_make_it_and_is_the_same_call(
    function: Callable[..., Any], args: list[int], kwargs: dict[str, int]
) -> None:
    codec = Arguments(function)
    try:
        expected = function(*args, **kwargs)
    except TypeError:
        try:
            codec.encode(tuple(args), kwargs)
        except ArgumentError:
            return
        raise AssertionError("recorded a call that Python refuses") from None
    args_back, kwargs_back = codec.decode(codec.encode(tuple(args), kwargs))
    assert function(*args_back, **kwargs_back) == expected


# --- decoding: anything may stand in the ledger


def rich(
    node: Node, /, crate: Crate[Box[bytes]], *movies: Movie, when: datetime | None = None, **open: Open
) -> None: ...


def dangerous(
    what: ImportString[Any] | None = None, hook: Callable[[], None] | None = None, name: str = ""
) -> None: ...


CODECS = [(function, Arguments(function)) for function in (*FUNCTIONS, rich, dangerous)]
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
NAMES = st.sampled_from(
    ["a", "b", "c", "d", "*rest", "*args", "**more", "**kwargs", "(unset)", "node", "crate", "*movies"]
)
LIKELY = st.recursive(
    st.integers() | st.sampled_from(["a", "2026-01-01T00:00:00", "os.system", "AA=="]) | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            NAMES | st.sampled_from(["name", "content", "below", "what", "hook", "when"]), inner, max_size=5
        )
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(NAMES | st.sampled_from(["what", "hook", "name"]), LIKELY | ANY_JSON, max_size=5)
VALID = [
    '{"node":{"name":"a","below":[{"name":"b","below":[]}]},"crate":{"content":{"content":"AA==","size":0},"label":"",'
    '"weight":null},"*movies":[{"year":1}],"when":"2026-01-01T00:00:00Z","**open":{"x":{"name":"a","y":1}},'
    '"(unset)":[[["crate"],["label"]],[["node","below",0],["below"]]]}',
    '{"a":1,"b":2,"*rest":[1,2],"c":3,"**more":{"a":4}}',
]


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A valid payload with a piece of it cut out, doubled or replaced."""
    text = draw(st.sampled_from(VALID))
    start, end = sorted(draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
    piece = draw(st.sampled_from(["", text[start:end] * 2, "null", "[]", "{}", "-1", '"a"']))
    return text[:start] + piece + text[end:]


@relaxed
@given(
    st.one_of(st.text(), ANY_JSON.map(json.dumps), OBJECTS.map(json.dumps), damaged(), st.sampled_from(VALID))
)
def test_any_text_is_a_payload_error_or_a_call_that_python_would_make(payload: str) -> None:
    for function, codec in CODECS:
        try:
            args, kwargs = codec.decode(payload)
        except PayloadError:
            continue
        inspect.signature(function).bind(*args, **kwargs)
        assert "what" not in kwargs
        assert "hook" not in kwargs


@relaxed
@given(
    st.one_of(DESCRIBED, MIXED_UNIONS), st.one_of(st.text(), ANY_JSON.map(json.dumps), LIKELY.map(json.dumps))
)
def test_any_text_is_a_payload_error_or_a_value(described: Typed, payload: str) -> None:
    with suppress(PayloadError):
        Value(described[0]).decode(payload)


def test_the_payloads_that_are_damaged_here_are_valid() -> None:
    assert Arguments(rich).decode(VALID[0])
    assert Arguments(all_kinds).decode(VALID[1]) == ((1, 2, 1, 2), {"c": 3, "a": 4})
