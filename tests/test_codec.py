"""The codec: what a task is given is what its caller passed, or the call is refused."""

import functools
import sys
import typing
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from fractions import Fraction
from functools import cached_property
from ipaddress import IPv4Address
from math import inf, nan
from pathlib import Path, PurePosixPath
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    ParamSpec,
    TypeVar,
    Unpack,
)
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from fastapi import Depends
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Discriminator,
    Field,
    HttpUrl,
    ImportString,
    Json,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    SecretBytes,
    SecretStr,
    Tag,
    computed_field,
    field_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import from_json
from typing_extensions import TypedDict  # typing's own will do from Python 3.12 on

from segundo.codec import FORMAT, LIMIT, Arguments, Value
from segundo.errors import ArgumentError, DeclarationError, PayloadError, ResultError
from tests.shape import shape

T = TypeVar("T")
P = ParamSpec("P")
UserId = NewType("UserId", int)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Size(Enum):
    SMALL = "s"
    LARGE = 2


class Rights(Flag):
    READ = 1
    WRITE = 2


class Line(BaseModel):
    sku: str
    count: int = 1
    price: Decimal = Decimal("0")


class Order(BaseModel):
    id: UUID
    lines: list[Line] = []
    placed: datetime | None = None


class Parcel(Order):
    weight: float = 0.0


class Cat(BaseModel):
    pet_type: Literal["cat"] = Field("cat", alias="petType")
    lives: int = 9


class Dog(BaseModel):
    pet_type: Literal["dog"] = Field("dog", alias="petType")
    tricks: list[str] = []


class Crate(BaseModel, Generic[T]):
    content: T
    label: str = ""


class Tree(BaseModel):
    name: str
    children: list["Tree"] = []


class Aliased(BaseModel):
    written: int = Field(1, serialization_alias="out")
    read: int = Field(2, validation_alias=AliasChoices("a", "b"))
    both: int = Field(3, alias="camelCase")


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str = ""


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    side: int = 1

    @computed_field
    def area(self) -> int:
        return self.side**2

    @cached_property
    def slow(self) -> int:
        return self.side


class Patch(BaseModel):
    name: str | None = None
    price: float | None = None
    tags: list[str] = []


class Patches(RootModel[list[Patch]]):
    def __iter__(self) -> Any:  # as Pydantic's documentation advises
        return iter(self.root)


@dataclass
class Point:
    x: float
    y: float = 0.0
    hidden: int = field(default=0, compare=False)


@dataclass(eq=False)
class Plot:
    points: list[Point]


@dataclass(frozen=True, slots=True)
class Box(Generic[T]):
    content: T


@pydantic_dataclass
class Checked:
    size: Annotated[int, Field(gt=0)]


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Pair(NamedTuple):
    left: int
    right: bytes = b""


class Version:
    """A type of the user's own that Pydantic is told about."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self.text == other.text

    __hash__ = None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls(value),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.text),
        )


class Connection:
    """Something live, such as a database session."""


def taking(annotation: Any) -> Callable[..., Any]:
    """A function of one parameter, `it`, so annotated."""

    def function(it: Any) -> None: ...

    function.__annotations__ = {"it": annotation}
    return function


def there_and_back(annotation: Any, value: Any) -> Any:
    codec = Arguments(taking(annotation))
    args, kwargs = codec.decode(codec.encode((value,), {}))
    assert args == ()
    return kwargs["it"]


def titles(pairs: list[tuple[Any, Any]]) -> list[str]:
    return [f"{number}-{type(value).__name__}" for number, (_, value) in enumerate(pairs)]


def refusal(function: Callable[..., Any], *args: Any, **kwargs: Any) -> ArgumentError:
    with pytest.raises(ArgumentError) as caught:
        Arguments(function).encode(args, kwargs)
    return caught.value


NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
ORDER = Order(id=UUID(int=7), lines=[Line(sku="a", price=Decimal("1.50"))], placed=NOON)

SURVIVES: list[tuple[Any, Any]] = [
    (str, "añ\U0001f600\x00"),
    (int, 10**4000),
    (bool, True),
    (float, 1.5),
    (float, nan),
    (float, -inf),
    (float | None, nan),
    (None, None),
    (bytes, bytes(range(256))),
    (list[bytes], [b"\xff\xfe", b""]),
    (dict[bytes, set[bytes]], {b"\xff": {b"\x00"}}),
    (Decimal, Decimal("1.50")),
    (Decimal, Decimal("1E+1000")),
    (Annotated[Decimal, Field(allow_inf_nan=True)], Decimal("nan")),
    (Decimal | float, Decimal("1.5")),
    (Decimal | float, 1.5),
    (UUID, UUID(int=1)),
    (date, date(2026, 2, 28)),
    (time, time(1, 2, 3, 4)),
    (time, time(1, tzinfo=UTC)),
    (datetime, datetime(2026, 1, 1)),
    (datetime, datetime(2026, 1, 1, 1, 1, 1, 123456, tzinfo=timezone(timedelta(hours=-5, minutes=-30)))),
    (datetime, datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Madrid"))),
    (datetime | date, date(2026, 1, 1)),
    (datetime | date, datetime(2026, 1, 1)),
    (timedelta, timedelta.max),
    (timedelta, -timedelta(microseconds=1)),
    (Path, Path("/tmp/ñ")),
    (PurePosixPath, PurePosixPath("a/b")),
    (IPv4Address, IPv4Address("10.0.0.1")),
    (HttpUrl, HttpUrl("https://example.com/a?b=c")),
    (Fraction, Fraction(1, 3)),
    (complex, 1 + 2j),
    (ByteSize, ByteSize(1024)),
    (Json[list[int]], [1, 2]),
    (Colour, Colour.RED),
    (Level, Level.HIGH),
    (Size, Size.LARGE),
    (Rights, Rights.READ | Rights.WRITE),
    (Colour | str, "red"),
    (UUID | str, UUID(int=1)),
    (UUID | str, "a"),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (list[tuple[int, list[str]]], [(1, ["a"])]),
    (set[int], {1, 2}),
    (frozenset[Colour], frozenset({Colour.RED, Colour.BLUE})),
    (set[float], {nan, 1.0}),
    (dict[float, int], {nan: 1, 2.0: 2}),
    (dict[Colour, int], {Colour.RED: 1}),
    (dict[UUID, Line], {UUID(int=1): Line(sku="a")}),
    (Mapping[str, int], {"a": 1}),
    (Sequence[int], [1, 2]),
    (deque[int], deque([1, 2])),
    (defaultdict[str, list[int]], defaultdict(list, {"a": [1]})),
    (OrderedDict[str, int], OrderedDict(b=1, a=2)),
    (Counter[str], Counter("aab")),
    (int | str | bool, True),
    (int | str | bool, 1),
    (int | str | bool, "1"),
    (Literal["a", 1], 1),
    (Literal[Colour.RED], Colour.RED),
    (Order | None, None),
    (Annotated[int, Field(gt=1)], 2),
    (UserId, UserId(3)),
    (T, [1, "a", None]),
    (Order, ORDER),
    (Parcel, Parcel(id=UUID(int=7), weight=1.5)),
    (Order | Parcel, Parcel(id=UUID(int=7), weight=1.5)),
    (Line | Patch, Patch(name="a")),
    (Cat | Dog, Dog(tricks=["sit"])),
    (Annotated[Cat | Dog, Field(discriminator="pet_type")], Cat(lives=3)),
    (
        Annotated[
            Annotated[Line, Tag("l")] | Annotated[Patch, Tag("p")],
            Discriminator(lambda it: "l" if "sku" in (it if isinstance(it, dict) else dict(it)) else "p"),
        ],
        Line(sku="a"),
    ),
    (Crate[int], Crate[int](content=1)),
    (Crate[Crate[list[bytes]]], Crate[Crate[list[bytes]]](content=Crate[list[bytes]](content=[b"a"]))),
    (Tree, Tree(name="a", children=[Tree(name="b", children=[Tree(name="c")])])),
    (Aliased, Aliased(written=4, a=5, camelCase=6)),
    (Open, Open(name="a", more={"b": [1]})),
    (Closed, Closed(side=3)),
    (RootModel[list[int]], RootModel[list[int]]([1])),
    (Point, Point(1.0, nan, hidden=3)),
    (Plot, Plot([Point(1.0)])),
    (Box[Pair], Box(Pair(1, b"\xff"))),
    (Checked, Checked(1)),
    (Movie, {"title": "a"}),
    (Movie, {"year": 1999, "title": "a"}),
    (Pair, Pair(1, b"\xff")),
    (Version, Version("1.2")),
    (Any, {"a": [1, 2.5, "x", None, True, {"b": []}]}),
    (object, "a"),
    (dict, {"a": 1}),
    (list, [1, "a"]),
]


def test_an_int_may_be_given_for_a_float_as_type_checkers_allow() -> None:
    def pay(amount: float) -> None: ...

    arguments = Arguments(pay)
    assert arguments.decode(arguments.encode((5,), {})) in (((5.0,), {}), ((), {"amount": 5.0}))


REFUSED: list[tuple[Any, Any]] = [
    (int, True),
    (int, 10**5000),
    (int, "1"),
    (int, 1.0),
    (int, Level.LOW),
    (bool, 1),
    (float, 2**53 + 1),
    (float, True),
    (float, Decimal("1.5")),
    (str, 1),
    (str, b"a"),
    (str, Colour.RED),
    (str, "\ud800"),
    (bytes, "a"),
    (bytes, bytearray(b"a")),
    (None, 1),
    (Decimal, 1.5),
    (Decimal, 1),
    (Decimal, Decimal("nan")),
    (Decimal, Decimal("snan")),
    (Annotated[Decimal, Field(allow_inf_nan=True)], Decimal("snan")),
    (Annotated[Decimal, AfterValidator(lambda it: it * 2)], Decimal(1)),
    (Annotated[list[int], AfterValidator(lambda it: it[1:])], [1]),
    (Annotated[set[int], AfterValidator(lambda it: it - {1})], {1}),
    (Annotated[set[int], AfterValidator(lambda it: it | {2})], {1}),
    (Open, Open(more=(1,))),
    (Annotated[dict[str, int], AfterValidator(lambda it: it | {"b": 1})], {"a": 1}),
    (Annotated[float, AfterValidator(lambda it: it + 1)], 1.0),
    (Annotated[Size, AfterValidator(lambda it: Size.SMALL)], Size.LARGE),
    (Annotated[Version, AfterValidator(lambda it: Version("2"))], Version("1")),
    (Annotated[Path, AfterValidator(Path.absolute)], Path("a")),
    (UUID, str(UUID(int=1))),
    (UUID | str, str(UUID(int=1))),
    (date, datetime(2026, 1, 1)),
    (datetime, date(2026, 1, 1)),
    (datetime, datetime(2026, 1, 1, tzinfo=timezone(timedelta(seconds=3601)))),
    (time, time(1, tzinfo=ZoneInfo("Europe/Madrid"))),
    (Path, "/tmp"),
    (Colour, "red"),
    (Level, 1),
    (Colour | str, Colour.RED),
    (list[int], (1, 2)),
    (list[int], [1, True]),
    (tuple[int, ...], [1]),
    (tuple[int, int], (1, 2, 3)),
    (set[int], frozenset({1})),
    (set[int], {True}),
    (set[int] | list[int], {1}),
    (list[Any], [(1,)]),
    (dict[str, int], {Colour.RED: 1}),
    (dict[int, str], {"1": "a"}),
    (Counter[str], {"a": 1}),
    (deque[int], deque([1], maxlen=3)),
    (Iterable[int], [1]),
    (Literal[1], True),
    (Literal["a"], "b"),
    (Annotated[int, Field(gt=1)], 1),
    (Order, Parcel(id=UUID(int=7))),
    (Order, {"id": UUID(int=7)}),
    (list[Order], [Parcel(id=UUID(int=7))]),
    (Crate[int], Crate(content=1)),
    (Movie, {"title": "a", "stars": 5}),
    (Pair, (1, b"")),
    (tuple[int, bytes], Pair(1, b"")),
    (Connection, Connection()),
    (Any, (1,)),
    (Any, {1: 2}),
    (Any, nan),
    (Any, b"a"),
    (Any, UUID(int=1)),
    (Any, Decimal(1)),
    (Any, NOON),
    (Any, Colour.RED),
    (Any, ORDER),
    (Any, {"a": {1}}),
    (Any, print),
    (object, Connection()),
    (Json[int], "1"),
]


@pytest.mark.parametrize(("annotation", "value"), SURVIVES, ids=titles(SURVIVES))
def test_a_value_of_its_annotation_comes_back_as_it_was(annotation: Any, value: Any) -> None:
    assert shape(there_and_back(annotation, value)) == shape(value)
    result = Value(annotation)
    assert shape(result.decode(result.encode(value))) == shape(value)


@pytest.mark.parametrize(("annotation", "value"), REFUSED, ids=titles(REFUSED))
def test_a_value_that_would_come_back_as_another_is_refused(annotation: Any, value: Any) -> None:
    error = refusal(taking(annotation), value)
    assert error.parameter == "it"
    assert "it" in str(error)
    with pytest.raises(ResultError):
        Value(annotation).encode(value)


def test_the_payload_is_json_for_a_human() -> None:
    def notify(email: str, message: str = "") -> None: ...

    assert Arguments(notify).encode(("a@b",), {"message": "x"}) == '{"email":"a@b","message":"x"}'
    assert Value(Order).encode(Order(id=UUID(int=7))) == (
        '{"id":"00000000-0000-0000-0000-000000000007","lines":[],"placed":null}'
    )
    assert FORMAT == 1


def test_a_default_that_is_not_passed_is_not_recorded() -> None:
    def notify(email: str, message: str = "") -> None: ...

    codec = Arguments(notify)
    assert codec.encode(("a",), {}) == '{"email":"a"}'
    assert codec.decode('{"email":"a"}') == ((), {"email": "a"})


def test_a_call_without_arguments_is_an_empty_object() -> None:
    def beat(every: int = 1) -> None: ...

    codec = Arguments(beat)
    assert codec.encode((), {}) == "{}"
    assert codec.decode("{}") == ((), {})


def everything(
    a: int, b: str = "b", /, c: int = 3, *rest: int, d: float, e: str = "e", **more: Line
) -> Any: ...


def test_each_kind_of_parameter_is_shown_by_its_name() -> None:
    codec = Arguments(everything)
    args, kwargs = (1, "x", 2, 4, 5), {"d": 1.0, "a": Line(sku="s", count=1, price=Decimal(2))}
    payload = codec.encode(args, kwargs)
    assert payload == (
        '{"a":1,"b":"x","c":2,"*rest":[4,5],"d":1.0,"**more":{"a":{"sku":"s","count":1,"price":"2"}}}'
    )
    assert codec.decode(payload) == (args, kwargs)


def test_extra_arguments_are_checked_by_their_annotation() -> None:
    assert refusal(everything, 1, "b", 3, 4, True, d=1.0).parameter == "rest"
    error = refusal(everything, 1, d=1.0, x=Line(sku="a", count=1, price=Decimal(0)), y=ORDER)
    assert error.parameter == "more"
    assert error.why.startswith("cannot be recorded: its .y.sku ")


class Wanted(TypedDict, total=False):
    colour: Colour
    size: int


def test_keyword_arguments_described_by_a_typed_dict_are_checked_by_it() -> None:
    def paint(**wanted: Unpack[Wanted]) -> None: ...

    codec = Arguments(paint)
    call = ((), {"colour": Colour.RED})
    assert codec.decode(codec.encode(*call)) == call
    assert refusal(paint, colour="red").parameter == "wanted"


def test_a_call_that_python_would_refuse_is_refused_naming_the_argument() -> None:
    def send(a: int, /, b: int, *, c: int) -> None: ...

    assert str(refusal(send, 1, c=1)).endswith("send(): argument 'b' is missing")
    assert refusal(send, 1, 2).parameter == "c"
    assert refusal(send, 1, 2, c=3, d=4).parameter == "d"
    assert refusal(send, 1, 2, b=2, c=3).parameter == "b"
    assert refusal(send, b=2, c=3, a=1).parameter == "a"
    assert "takes 2 by position" in str(refusal(send, 1, 2, 3, c=3))


def test_what_a_function_wraps_does_not_matter() -> None:
    def inner(order: Order) -> None: ...

    @functools.wraps(inner)
    def outer(*args: Any, **kwargs: Any) -> None: ...

    codec = Arguments(outer)
    assert codec.decode(codec.encode((1,), {"x": 2})) == ((1,), {"x": 2})
    assert refusal(outer, ORDER).parameter == "args"


def test_annotations_copied_from_another_module_are_looked_up_there() -> None:
    elsewhere: dict[str, Any] = {"Known": Line}
    exec("def inner(line: 'Known'): ...", elsewhere)

    @functools.wraps(elsewhere["inner"])
    def outer(line, *args): ...

    codec = Arguments(outer)
    assert codec.decode(codec.encode((Line(sku="a"),), {})) == ((), {"line": Line(sku="a")})


def test_a_wrapper_of_any_signature_takes_jsons_own_types() -> None:
    def outer(*args: P.args, **kwargs: P.kwargs) -> None: ...

    codec = Arguments(outer)
    assert codec.decode(codec.encode((1,), {"x": 2})) == ((1,), {"x": 2})


def test_methods_and_callable_objects_have_codecs_too() -> None:
    class Sender:
        def send(self, to: "Line") -> None: ...

        def __call__(self, to: Line) -> None: ...

    for function in (Sender().send, Sender()):
        codec = Arguments(function)
        assert codec.decode(codec.encode((Line(sku="a"),), {})) == ((), {"to": Line(sku="a")})


def test_a_builtin_that_hides_its_parameters_takes_none() -> None:
    assert Arguments(getattr).encode((), {}) == "{}"
    assert refusal(dict, a=1).parameter == "a"


def test_an_annotation_may_name_what_is_defined_later() -> None:
    def send(order: "list[Later]") -> "Later": ...  # noqa: F821  (defined below)

    codec, result = Arguments(send), Value.returned_by(send)
    codec.check_declaration()
    globals()["Later"] = Line
    try:
        assert codec.decode(codec.encode(([Line(sku="a")],), {})) == ((), {"order": [Line(sku="a")]})
        assert result.decode(result.encode(Line(sku="a"))) == Line(sku="a")
    finally:
        del globals()["Later"]


def test_an_annotation_for_type_checkers_only_refuses_just_its_parameter() -> None:
    def send(email: str, session: "OnlyForTypeCheckers | None" = None) -> None: ...  # noqa: F821  (meant)

    assert Arguments(send).encode(("a",), {}) == '{"email":"a"}'
    error = refusal(send, "a", session=1)
    assert error.parameter == "session"
    assert "OnlyForTypeCheckers" in error.why


def test_a_model_with_a_field_not_yet_defined_is_left_for_the_first_call() -> None:
    class Unfinished(BaseModel):
        line: "NotDefinedAnywhere"  # noqa: F821  (meant)

    Arguments(taking(Unfinished)).check_declaration()
    error = refusal(taking(Unfinished), Unfinished.model_construct(line=1))
    assert "cannot be looked up" in error.why


def test_none_as_a_default_may_be_passed_as_well() -> None:
    def send(name: str = None) -> None: ...  # noqa: RUF013  (people write this)

    codec = Arguments(send)
    assert codec.decode(codec.encode((None,), {})) == ((), {"name": None})


if sys.version_info >= (3, 12):  # the syntax is of Python 3.12: before, there is nothing to test

    def test_aliases_and_generics_of_the_type_statement_are_understood() -> None:
        space: dict[str, Any] = {"Line": Line}
        exec("type Lines = list[Line]\ndef send[T: Line](lines: 'Lines', one: 'T') -> 'T': ...", space)
        codec = Arguments(space["send"])
        assert codec.decode(codec.encode(([Line(sku="a")], Line(sku="b")), {}))[1]["one"] == Line(sku="b")
        assert Value.returned_by(space["send"]).encode(Line(sku="b")).startswith('{"sku":"b"')
        error = refusal(space["send"], [1], Line(sku="b"))
        assert error.parameter == "lines"


# --- what the refusal says


def test_a_refusal_says_where_and_what_in_the_argument_without_its_values() -> None:
    order = ORDER.model_copy(update={"lines": [Line(sku="a"), Line.model_construct(sku="b", count=True)]})
    error = refusal(taking(Order), order)
    assert error.why == "cannot be recorded: its .lines[1].count is bool and would come back as int"
    error = refusal(taking(Annotated[str, Field(max_length=3)]), "my password")
    assert error.why == "cannot be recorded: it does not fit: String should have at most 3 characters"
    assert "my password" not in str(error.__cause__)
    assert "my password" not in str(error.__cause__.__cause__ if error.__cause__ else "")


def test_types_of_one_name_are_told_apart_by_their_modules() -> None:
    space = {"__module__": "elsewhere", "__qualname__": "Line", "__annotations__": {"sku": str}}
    other = type("Line", (BaseModel,), space)(sku="a")
    assert refusal(taking(Line), other).why == (
        "cannot be recorded: it is elsewhere.Line and would come back as tests.test_codec.Line"
    )


class Account(BaseModel):
    name: str
    password: SecretStr = SecretStr("")
    keys: list[SecretBytes] = []


@pytest.mark.parametrize(
    ("annotation", "value", "where"),
    [
        (SecretStr, SecretStr("x"), "it"),
        (SecretStr, SecretStr(""), "it"),
        (Account, Account(name="a", password=SecretStr("x")), "its .password"),
        (list[Account], [Account(name="a", keys=[SecretBytes(b"x")])], "its [0].password"),
        (dict[str, SecretStr], {"a": SecretStr("**********")}, "its .a"),
    ],
)
def test_a_secret_is_refused_because_it_is_masked(annotation: Any, value: Any, where: str) -> None:
    error = refusal(taking(annotation), value)
    assert error.why.startswith(f"cannot be recorded: {where} is SecretStr, which is masked")


class Guarded(BaseModel):
    name: str
    token: str = Field(exclude=True)
    note: str = Field("", exclude=True)


def test_an_excluded_field_is_refused_because_it_is_left_out() -> None:
    class Noted(BaseModel):
        note: str = Field("", exclude=True)

    assert (
        ".token is left out when it is written" in refusal(taking(Guarded), Guarded(name="a", token="t")).why
    )
    assert ".note is left out when it is written" in refusal(taking(Noted), Noted(note="n")).why
    assert ".note is left out when it is written" in refusal(taking(Noted), Noted(note="")).why
    assert there_and_back(Noted, Noted()) == Noted()


def test_a_model_that_changes_what_it_is_given_is_refused() -> None:
    class Salted(BaseModel):
        password: str

        @field_validator("password")
        @classmethod
        def salt(cls, value: str) -> str:
            return f"salt{value}"

    assert ".password would come back changed" in refusal(taking(Salted), Salted(password="a")).why


def test_a_model_writes_bytes_and_nan_as_its_own_configuration_says() -> None:
    class Plain(BaseModel):
        data: bytes = b""
        number: float = 0.0

    class Configured(Plain):
        model_config = ConfigDict(
            ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings"
        )

    assert there_and_back(Plain, Plain(data="ñ".encode())) == Plain(data="ñ".encode())
    assert "invalid utf-8" in refusal(taking(Plain), Plain(data=b"\xff")).why
    assert ".number does not fit" in refusal(taking(Plain), Plain(number=nan)).why
    full = Configured(data=b"\xff", number=inf)
    assert there_and_back(Configured, full) == full


def test_a_private_attribute_is_part_of_a_model() -> None:
    class Counted(BaseModel):
        _count: int = PrivateAttr(0)

    used = Counted()
    assert there_and_back(Counted, used) == used
    used._count = 1
    assert "._count would come back changed" in refusal(taking(Counted), used).why


def test_a_property_that_a_model_has_cached_is_no_difference() -> None:
    closed = Closed(side=2)
    assert closed.slow == 2
    assert there_and_back(Closed, closed) == closed


def test_what_users_code_raises_is_a_refusal() -> None:
    def explode(value: Any) -> Any:
        raise RuntimeError("boom")

    for annotation in (Annotated[int, PlainSerializer(explode)], Annotated[int, BeforeValidator(explode)]):
        error = refusal(taking(annotation), 1)
        assert error.parameter == "it"
    codec = Arguments(taking(Annotated[int, BeforeValidator(explode)]))
    with pytest.raises(PayloadError, match="RuntimeError"):
        codec.decode('{"it":1}')


def test_what_cannot_be_compared_is_refused() -> None:
    class Stubborn(Version):
        def __eq__(self, other: object) -> bool:
            raise ValueError("not even with myself")

    assert "cannot be compared" in refusal(taking(Stubborn), Stubborn("a")).why


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert "cannot be written" in refusal(taking(Any), loop).why


def test_a_value_nested_too_deeply_is_refused() -> None:
    deep: Any = []
    for _ in range(10_000):
        deep = [deep]
    assert refusal(taking(Any), deep).parameter == "it"


def test_the_parameter_that_cannot_be_written_is_named_among_others() -> None:
    def send(a: int, b: Any, c: int) -> None: ...

    assert refusal(send, 1, Connection(), 3).parameter == "b"
    assert refusal(send, 1, "\ud800", 3).parameter == "b"


# --- size


def test_a_payload_above_the_limit_is_refused_with_its_size_and_the_limit() -> None:
    def send(a: str, b: str = "") -> None: ...

    error = refusal(send, "x", b="y" * LIMIT)
    assert error.parameter == "b"
    assert "1,048,584 bytes" in error.why
    assert "1,048,576" in error.why
    together = refusal(send, "x" * (LIMIT // 2), "y" * (LIMIT // 2 + 1))
    assert together.parameter == "b"
    assert "it with the others is 1,048,592 bytes" in together.why
    with pytest.raises(ResultError, match="limit is 10"):
        Value(str, limit=10).encode("x" * 9)


def test_a_payload_just_at_the_limit_is_recorded() -> None:
    codec = Arguments(taking(str), limit=100)
    assert len(codec.encode(("x" * 91,), {})) == 100
    with pytest.raises(ArgumentError):
        codec.encode(("x" * 92,), {})


# --- partial updates


@pytest.mark.parametrize(
    ("annotation", "value", "find"),
    [
        (Patch, Patch(name="a"), lambda it: it),
        (Patch, Patch(name=None), lambda it: it),
        (Patch, Patch(name="a", price=None, tags=[]), lambda it: it),
        (list[Patch], [Patch(price=1.0), Patch(name="a")], lambda it: it[1]),
        (tuple[int, Patch], (1, Patch(name="a")), lambda it: it[1]),
        (dict[str, Patch], {"a/b": Patch(name="a")}, lambda it: it["a/b"]),
        (dict[UUID, Patch], {UUID(int=1): Patch(), UUID(int=2): Patch(name="a")}, lambda it: it[UUID(int=2)]),
        (Crate[Patch], Crate[Patch](content=Patch(name="a")), lambda it: it.content),
        (Box[Patch], Box(Patch(name="a")), lambda it: it.content),
        (Open, Open(more=1), lambda it: it),
        (Patches, Patches([Patch(), Patch(name="a")]), lambda it: it.root[1]),
        (deque[Patch], deque([Patch(name="a")]), lambda it: it[0]),
    ],
)
def test_what_the_caller_left_unset_is_still_unset(
    annotation: Any, value: Any, find: Callable[[Any], BaseModel]
) -> None:
    back = there_and_back(annotation, value)
    assert back == value
    assert find(back).model_fields_set == find(value).model_fields_set
    assert find(back).model_dump(exclude_unset=True) == find(value).model_dump(exclude_unset=True)


def test_unset_fields_are_written_with_their_values_and_named() -> None:
    def update(id: int, patch: Patch) -> None: ...

    payload = Arguments(update).encode((1,), {"patch": Patch(name="a")})
    assert from_json(payload) == {
        "id": 1,
        "patch": {"name": "a", "price": None, "tags": []},
        "(unset)": [[["patch"], ["price", "tags"]]],
    }


@pytest.mark.parametrize(
    "unset",
    [
        '[[["patch","name"],["name"]]]',
        '[[["patch","__class__"],[]]]',
        '[[["patch","model_config"],[]]]',
        '[[["nobody"],[]]]',
        "[[[],[]]]",
        '[[["patch",5],[]]]',
        '[[["patches",7],[]]]',
        '[[["patches","0"],[]]]',
        '[[["table",1],[]]]',
        '[[["box","__dict__"],[]]]',
        '[[["box",0],[]]]',
        '[[["open","name","x"],[]]]',
        '[[["open","none"],[]]]',
        '[["patch",["name"]]]',
        '[[["patch"],"name"]]',
        "5",
    ],
)
def test_a_forged_path_to_an_unset_field_is_a_payload_error(unset: str) -> None:
    def function(
        patch: Patch, patches: list[Patch], table: dict[int, Patch], box: Box[Patch], open: Open
    ) -> None: ...

    codec = Arguments(function)
    given = '"patch":{"name":"a"},"patches":[{}],"table":{"1":{}},"box":{"content":{}},"open":{"more":1}'
    assert codec.decode(f'{{{given},"(unset)":[[["table",0],["name"]]]}}')
    with pytest.raises(PayloadError):
        codec.decode(f'{{{given},"(unset)":{unset}}}')


# --- declarations


@pytest.mark.parametrize(
    "annotation",
    [
        Callable[[], None],
        Callable[[], None] | None,
        list[Callable[..., Any]],
        ImportString,
        ImportString[Callable[[], None]],
        ImportString[Any] | None,
        dict[str, list[ImportString[Any]]],
    ],
)
def test_code_is_refused_at_declaration_and_at_the_call(annotation: Any) -> None:
    class Hook(BaseModel):
        metadata: list[annotation] = []
        type: str = ""

    @dataclass
    class Holder:
        hook: Hook | None = None

    for declared in (annotation, Hook, Holder, Crate[Hook] | None):

        def function(a: int = 0, hook: Any = None) -> None: ...

        function.__annotations__["hook"] = declared
        with pytest.raises(DeclarationError, match="parameter 'hook' cannot be recorded: it may be"):
            Arguments(function).check_declaration()
        assert "code is never recorded" in refusal(function, hook=None).why
        with pytest.raises(ResultError):
            Value(declared).encode(None)


@pytest.mark.parametrize("annotation", [ImportString, ImportString[Any] | None, list[ImportString[Any]]])
def test_a_forged_payload_imports_nothing(annotation: Any) -> None:
    sys.modules.pop("this", None)  # a module that nobody needs, and that prints a poem
    for payload in ('{"it":"this"}', '{"it":["this"]}'):
        with pytest.raises(PayloadError):
            Arguments(taking(annotation)).decode(payload)
        with pytest.raises(PayloadError):
            Value(annotation).decode(payload[6:-1])
    assert "this" not in sys.modules


def test_a_parameter_without_a_json_form_is_refused_at_declaration_unless_it_has_a_default() -> None:
    def needs(name: str, db: Connection) -> None: ...

    def may_have(name: str, db: Connection | None = None) -> None: ...

    with pytest.raises(
        DeclarationError, match=r"needs\(\): parameter 'db' cannot be recorded: it has no JSON form"
    ):
        Arguments(needs).check_declaration()
    codec = Arguments(may_have)
    codec.check_declaration()
    assert codec.decode(codec.encode(("a",), {})) == ((), {"name": "a"})
    with pytest.raises(ArgumentError, match="'db' cannot be recorded"):
        codec.encode(("a", Connection()), {})


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="Pydantic asks for another TypedDict before Python 3.12"
)
def test_why_an_annotation_has_no_json_form_is_told() -> None:
    plain = getattr(typing, "TypedDict")("plain", {"a": int})  # noqa: B009  (hidden from the import above)
    assert "typing_extensions.TypedDict" in refusal(taking(plain), {"a": 1}).why


def test_making_a_codec_never_fails() -> None:
    def function(a: Connection, b: "Nowhere", c: Callable[[], None], d: "1 +") -> None: ...  # noqa: F722, F821  (meant)

    codec = Arguments(function)
    assert refusal(function, 1, 2, 3, 4).parameter == "a"
    with pytest.raises(PayloadError):
        codec.decode("{}")


def test_an_injected_parameter_is_neither_recorded_nor_passed() -> None:
    def send(to: str, db: Annotated[Connection, Depends(Connection)], copy: str = "") -> None: ...

    codec = Arguments(send)
    codec.check_declaration()
    assert codec.decode(codec.encode(("a",), {"copy": "b"})) == ((), {"to": "a", "copy": "b"})
    with pytest.raises(ArgumentError, match="'db' cannot be recorded: it is injected when the task runs"):
        codec.encode(("a", Connection()), {})
    with pytest.raises(PayloadError):
        codec.decode('{"to":"a","db":1}')


# --- payloads that do not fit


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "null",
        "[]",
        "{",
        '{"a":1,"d":1.0',
        "{}",
        '{"a":1}',
        '{"a":1,"d":"x"}',
        '{"a":1,"d":1.0,"z":1}',
        '{"a":1,"d":1.0,"rest":[1]}',
        '{"a":1,"b":"b","d":1.0,"*rest":[1]}',
        '{"a":1,"d":1.0,"*rest":[1]}',
        '{"a":1,"d":1.0,"**more":{"c":{"sku":"a"}}}',
        '{"a":1,"d":1.0,"**more":{"x":1}}',
        '{"a":1,"d":1.0,"**more":[]}',
        '{"a":null,"d":1.0}',
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"a":' + "9" * 5_000 + ',"d":"x"}',
        "\ud800",
        '"\\ud800"',
        "\x00",
    ],
    ids=lambda payload: ascii(payload[:40]),
)
def test_a_payload_that_does_not_fit_is_a_payload_error(payload: str) -> None:
    with pytest.raises(PayloadError, match="everything"):
        Arguments(everything).decode(payload)


def test_a_gap_before_a_positional_argument_is_a_payload_error() -> None:
    def function(a: int = 1, b: int = 2, /) -> None: ...

    assert Arguments(function).decode('{"a":3}') == ((3,), {})
    with pytest.raises(PayloadError, match="'a' is missing"):
        Arguments(function).decode('{"b":3}')


def test_a_deeply_nested_model_in_a_payload_is_a_payload_error() -> None:
    with pytest.raises(PayloadError):
        Arguments(taking(Tree)).decode('{"it":' + '{"name":"a","children":[' * 5_000 + "]}" * 5_000 + "}")


def test_a_payload_error_does_not_quote_the_payload() -> None:
    with pytest.raises(PayloadError) as caught:
        Arguments(taking(int)).decode('{"it":"my password"}')
    assert "my password" not in str(caught.value)
    assert "my password" not in str(caught.value.__cause__)


# --- results


def test_a_result_without_annotation_takes_jsons_own_types() -> None:
    def function(): ...

    result = Value.returned_by(function)
    assert result.encode({"a": [1, None]}) == '{"a":[1,null]}'
    with pytest.raises(ResultError, match="would come back as list"):
        result.encode((1,))


def test_a_result_that_is_not_what_its_annotation_says_is_an_error() -> None:
    with pytest.raises(
        ResultError, match="the value, Parcel, cannot be recorded: it is Parcel and would come back as Order"
    ):
        Value(Order).encode(Parcel(id=UUID(int=1)))
    with pytest.raises(ResultError, match="has no JSON form"):
        Value(Connection).encode(Connection())
    with pytest.raises(PayloadError, match="does not fit"):
        Value(int).decode('"x"')
    with pytest.raises(PayloadError, match="has no JSON form"):
        Value(Connection).decode("1")


def test_a_result_annotation_that_cannot_be_looked_up_is_an_error_when_there_is_a_result() -> None:
    def function() -> "Nowhere": ...  # noqa: F821  (meant)

    with pytest.raises(ResultError, match="Nowhere"):
        Value.returned_by(function).encode(1)
