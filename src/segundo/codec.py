"""How arguments and results become text in a record and come back: JSON by Pydantic, as annotations say.

The rule is *round trip or refuse*: what is written is read again at once, and refused unless an equal value
of the same type comes back, deeply. So a task never sees other arguments than its caller passed. What no
annotation describes follows the same rule, and so can only be of JSON's own types.

The text is an object of named values, {"email": "a@b", "message": "x"} (see `signature`); bytes are base64,
except in a model, whose own configuration says how it writes bytes and nan. A model is written whole, and the
fields that its maker left unset are named beside it, so that a partial update stays one:
{"patch": {"name": "x", "price": 0.0}, "(unset)": [[["patch"], ["price"]]]}.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, Unpack, cast, get_args, get_origin

from pydantic import GetCoreSchemaHandler, ImportString, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import CoreSchema, core_schema, to_json

from segundo.errors import ArgumentError, DeclarationError, PayloadError, ResultError
from segundo.injection import check_unread, injected
from segundo.roundtrip import Unset, steps, unset_again
from segundo.signature import Call, Signature, result_annotation
from segundo.trip import Refusal, SecretTrip, Trip, adapter_of, first_line

FORMAT = 1  # of the text; a record keeps it, so that a later Segundo can read what an earlier one wrote
LIMIT = 1_048_576  # bytes of text

NO_ARGUMENTS = "{}"
CERTAIN = (str, bool)  # values of these very types come back from any text that they were written to
UNSET = "(unset)"  # no parameter can have this name
# A typed dict takes its configuration from nowhere else.
PAYLOAD_CONFIG = core_schema.CoreConfig(
    ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings"
)


@dataclass(frozen=True, slots=True)
class NoForm:
    """Why values of an annotation cannot be recorded: a phrase about the parameter, or the result."""

    why: str
    code: bool = False  # its values are code, which is never stored
    undefined: bool = False  # it names something that does not exist (yet)


IS_INJECTED = NoForm("is injected when the task runs")


@dataclass(frozen=True, slots=True)
class Plan:
    """What `Arguments` works out once, when it is first used."""

    signature: Signature
    injected: frozenset[str]  # parameters that FastAPI fills in when the task runs
    refused: Mapping[str, NoForm]
    trip: Trip
    certain: Mapping[str, Any] | None  # the annotations, if values of just these types always come back

    def proves(self, given: Mapping[str, Any]) -> bool:
        """Whether these values come back for certain, so that nobody needs to try."""
        certain = self.certain
        return certain is not None and all(type(value) is certain[key] for key, value in given.items())


class Arguments:
    """The codec of one function's arguments; cheap to make, worked out when first used, kept with the task.

    Parameters that are injected when the task runs are never recorded, and refused when passed.
    `limit`: bytes of text. `secret`: written in clear, also SecretStr and fields that are left out of dumps,
    and never quoted in an error.
    """

    def __init__(self, function: Callable[..., Any], *, limit: int = LIMIT, secret: bool = False) -> None:
        self._function = function
        self._limit = limit
        self._trip = SecretTrip if secret else Trip
        self._plan: Plan | None = None

    @property
    def injected(self) -> frozenset[str]:
        """The parameters that are injected. DeclarationError if one cannot be."""
        return (self._plan or self._first_plan()).injected

    def check_declaration(self) -> None:
        """Raise DeclarationError, naming a parameter, if no call could be recorded, or one would record code,
        or if the parameter is to be read from a request.

        An annotation that names what is not defined yet is left for the first call.
        """
        plan = self._work_out()
        check_unread(plan.signature)
        for key, form in plan.refused.items():
            if form.code or (key in plan.signature.required and not form.undefined):
                parameter = f"{plan.signature.name}(): parameter {key.lstrip('*')!r}"
                raise DeclarationError(f"{parameter} cannot be recorded: it {form.why}")
        if not any(form.undefined for form in plan.refused.values()):
            self._plan = plan

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """The text of a call's arguments. ArgumentError, naming one, if they do not fit or do not survive."""
        plan = self._plan or self._first_plan()
        if not (args or kwargs or plan.signature.required):
            return NO_ARGUMENTS
        given = plan.signature.bind(args, kwargs)
        if plan.refused and not plan.refused.keys().isdisjoint(given):
            key = next(key for key in given if key in plan.refused)
            raise self._error(plan, key, f"it {plan.refused[key].why}")
        try:
            written, unset = plan.trip.write(given, proven=plan.proves(given))
        except Refusal as refusal:
            key, why = blame(plan.trip, given, refusal)
            raise self._error(plan, key, str(why)) from refusal
        return (with_unset(written, unset) if unset else written).decode()

    def decode(self, payload: str) -> Call:
        """The call of a text: `function(*args, **kwargs)`. PayloadError if it does not fit."""
        plan = self._plan or self._first_plan()
        try:
            given = plan.trip.read(payload)
            for path, names in given.pop(UNSET, ()):
                unset_again(given, path, names)
            return plan.signature.unbind(given)
        except (Refusal, LookupError) as error:  # LookupError: a path to nowhere, an argument that is missing
            name = plan.signature.name
            raise PayloadError(f"the recorded arguments of {name}() do not fit it: {error}") from error

    def _error(self, plan: Plan, key: str, why: str) -> ArgumentError:
        return ArgumentError(plan.signature.name, key.lstrip("*"), f"cannot be recorded: {why}")

    def _first_plan(self) -> Plan:
        # Two threads may both work it out: they get the same.
        self._plan = plan = self._work_out()
        return plan

    def _work_out(self) -> Plan:
        whole = Signature(self._function)
        skip = injected(whole)
        signature = Signature(self._function, skip) if skip else whole
        annotations: dict[str, Any] = {}
        refused: dict[str, NoForm] = {}
        for key in signature.parameters:
            annotation = IS_INJECTED if key in skip else looked_up(signature, key)
            objection = annotation if isinstance(annotation, NoForm) else no_form(key, annotation)
            if objection is None:
                annotations[key] = annotation
            else:
                refused[key] = objection
        return Plan(
            signature,
            skip,
            refused,
            self._trip(lambda handler: payload_schema(annotations, handler), self._limit),
            annotations if all(annotation in CERTAIN for annotation in annotations.values()) else None,
        )


class Value:
    """The codec of one annotated value, such as a result; worked out when first used.

    `limit`: bytes of text.
    """

    def __init__(self, annotation: Any, *, limit: int = LIMIT) -> None:
        self._annotation: Callable[[], Any] = lambda: annotation
        self._limit = limit
        self._trip: Trip | NoForm | None = None

    @classmethod
    def returned_by(cls, function: Callable[..., Any], *, limit: int = LIMIT) -> Self:
        """The codec of a function's result, whose annotation may name what is defined only later."""
        value = cls(Any, limit=limit)
        value._annotation = lambda: result_annotation(function)
        return value

    def encode(self, value: Any) -> str:
        """The text of a value. ResultError if it does not fit the annotation or survive, or is too large."""
        trip = self._trip or self._first_trip()
        if isinstance(trip, NoForm):
            raise ResultError(f"the value cannot be recorded: it {trip.why}")
        try:
            # Which fields were left unset is dropped: a result is there to be shown, as plain JSON of itself.
            return trip.write(value)[0].decode()
        except Refusal as refusal:
            kind = type(value).__qualname__
            raise ResultError(f"the value, {kind}, cannot be recorded: {refusal}") from refusal

    def decode(self, payload: str) -> Any:
        """The value of a text. PayloadError if it is older, or forged, and does not fit the annotation."""
        trip = self._trip or self._first_trip()
        if isinstance(trip, NoForm):
            raise PayloadError(f"the recorded value cannot be read: it {trip.why}")
        try:
            return trip.read(payload)
        except Refusal as refusal:
            raise PayloadError(f"the recorded value cannot be read: {refusal}") from refusal

    def _first_trip(self) -> Trip | NoForm:
        self._trip = trip = self._work_out()
        return trip

    def _work_out(self) -> Trip | NoForm:
        try:
            annotation = self._annotation()
        except Exception as error:  # an annotation is any expression
            return undefined(error)
        objection = no_form("", annotation)
        return objection or Trip(lambda handler: schema_of("", annotation, handler), self._limit)


def payload_schema(annotations: Mapping[str, Any], handler: GetCoreSchemaHandler) -> CoreSchema:
    """All arguments as one object, so that one call of Pydantic writes them and one reads them."""
    step = core_schema.union_schema([core_schema.str_schema(), core_schema.int_schema()])
    names = core_schema.list_schema(core_schema.str_schema())
    unset = core_schema.list_schema(core_schema.tuple_schema([core_schema.list_schema(step), names]))
    fields = {key: schema_of(key, annotation, handler) for key, annotation in annotations.items()}
    return core_schema.typed_dict_schema(
        {
            key: core_schema.typed_dict_field(schema, required=False)
            for key, schema in {**fields, UNSET: unset}.items()
        },
        extra_behavior="forbid",
        config=PAYLOAD_CONFIG,
    )


def schema_of(key: str, annotation: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    """What a parameter holds: `*` and `**` before its name say that it is several arguments."""
    if key.startswith("**"):
        if get_origin(annotation) is Unpack:
            return handler.generate_schema(get_args(annotation)[0])
        return core_schema.dict_schema(core_schema.str_schema(), handler.generate_schema(annotation))
    if key.startswith("*"):
        return core_schema.tuple_schema([handler.generate_schema(annotation)], variadic_item_index=0)
    return handler.generate_schema(annotation)


def looked_up(signature: Signature, key: str) -> Any:
    """The annotation of a parameter, or NoForm."""
    try:
        return signature.takes(key)
    except Exception as error:  # an annotation is any expression
        return undefined(error)


def no_form(key: str, annotation: Any) -> NoForm | None:
    """What speaks against recording values of an annotation; None if nothing does."""
    try:
        code = code_in(adapter_of(lambda handler: schema_of(key, annotation, handler)).core_schema)
    except PydanticSchemaGenerationError:
        name = getattr(annotation, "__qualname__", annotation)
        return NoForm(f"has no JSON form ({name}); pass what finds it again, such as an id")
    except Exception as error:  # Pydantic's, or of a hook that the type brings along
        if isinstance(error, NameError) or getattr(error, "code", None) == "class-not-fully-defined":
            return undefined(error)
        return NoForm(f"has no JSON form: {first_line(error)}")
    return None if code is None else NoForm(f"may be {code}, and code is never recorded", code=True)


def undefined(error: Exception) -> NoForm:
    return NoForm(f"has an annotation that cannot be looked up ({first_line(error)})", undefined=True)


# What Pydantic runs for an ImportString: it imports what the text names, which a forged record would choose.
IMPORT_STRING = cast("Any", TypeAdapter(ImportString).core_schema)["function"]["function"]


def code_in(schema: object) -> str | None:
    """What code the values of a schema may be, at any depth."""
    unseen = [schema]
    while unseen:
        node = unseen.pop()
        if isinstance(node, Mapping):
            parts = cast("Mapping[str, object]", node)
            if parts.get("type") == "callable":
                return "a callable"
            if parts.get("function") is IMPORT_STRING:
                return "an ImportString"
            # A schema says its type, and keeps values too. What says none is a set of fields, of any names.
            skipped = {"metadata", "default"} if isinstance(parts.get("type"), str) else set[str]()
            unseen.extend(part for name, part in parts.items() if name not in skipped)
        elif isinstance(node, list | tuple):
            unseen.extend(cast("list[object]", node))
    return None


def blame(trip: Trip, given: Mapping[str, Any], refusal: Refusal) -> tuple[str, Refusal]:
    """The parameter that a refusal of all of them is about, and the refusal as told of it."""
    if refusal.path:
        return str(refusal.path[0]), Refusal(refusal.why, refusal.path[1:])
    sizes: dict[str, int] = {}
    for key, value in given.items():
        try:
            sizes[key] = len(trip.write({key: value})[0])
        except Refusal as alone:
            return key, Refusal(alone.why, alone.path[1:])
    # Each is fine alone, so together they are too large: the largest has most to answer for.
    return max(sizes, key=sizes.__getitem__), Refusal(f"with the others {refusal.why}")


def with_unset(written: bytes, unset: Unset) -> bytes:
    """The payload, an object that is not empty, with one more member."""
    found = [(steps(trail), names) for trail, names in unset]
    return written[:-1] + b"," + to_json({UNSET: found})[1:]
