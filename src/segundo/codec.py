"""How arguments and results become text in a record and come back: JSON by Pydantic, from a function's annotations.

The rule is *round trip or refuse*: what is written is read again at once, and the call is refused unless an equal value
of the same type comes back, deeply. So a task never sees other arguments than its caller passed. What no annotation
describes takes JSON's own types only, by the same rule.

The text is an object of named values, {"email": "a@b", "message": "x"}, see `signature`; bytes are base64. Fields of
models that their maker left unset are written with their values, and named beside them, so that a partial update stays
one: {"patch": {"name": "x", "price": 0.0}, "(unset)": [[["patch"], ["price"]]]}.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeAlias, Unpack, get_args, get_origin

from pydantic import ConfigDict, GetCoreSchemaHandler, ImportString, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import CoreSchema, core_schema, to_json

from segundo.errors import ArgumentError, DeclarationError, PayloadError, ResultError
from segundo.roundtrip import Step, Unset, difference, place, steps, unset_again
from segundo.signature import Call, Signature, result_annotation

FORMAT = 1  # of the text; a record keeps it, so that a later Segundo can read what an earlier one wrote
LIMIT = 1_048_576  # bytes of text

NO_ARGUMENTS = "{}"
UNSET = "(unset)"  # no parameter can have this name
CONFIG = ConfigDict(
    ser_json_bytes="base64",
    val_json_bytes="base64",
    ser_json_inf_nan="strings",
    hide_input_in_errors=True,  # values do not belong in logs
)
# A typed dict does not take the configuration from outside, as other types do.
PAYLOAD_CONFIG = core_schema.CoreConfig(
    ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings", hide_input_in_errors=True
)

Schema: TypeAlias = Callable[[GetCoreSchemaHandler], CoreSchema]


class Refusal(Exception):
    """A value does not survive: `path` leads to what does not, and `why` is a phrase whose subject that is."""

    def __init__(self, why: str, path: tuple[Step, ...] = ()) -> None:
        super().__init__(why)
        self.why = why
        self.path = path

    def __str__(self) -> str:
        return f"its {place(self.path)} {self.why}" if self.path else f"it {self.why}"


class Trip:
    """One writer and one reader made by Pydantic, and the proof that they agree about a value."""

    def __init__(self, schema: Schema, limit: int) -> None:
        adapter = adapter_of(schema)
        self._dump = adapter.serializer.to_json
        self._load = adapter.validator.validate_json
        self._limit = limit

    def write(self, value: Any) -> tuple[bytes, Unset]:
        """The JSON of a value, and the models in it that have fields unset. Refusal if it would not come back."""
        try:
            # Pydantic's warnings about unexpected types stay off: what comes back is the judge, and the stricter one.
            written = self._dump(value, by_alias=False, round_trip=True, warnings=False)
        except Exception as error:  # also what a serializer of the user's raises
            raise Refusal(f"cannot be written as JSON: {error}") from error
        if len(written) > self._limit:
            size = f"{len(written):,} bytes of JSON, and the limit is {self._limit:,}"
            raise Refusal(f"is {size}; store it, and pass what finds it again")
        unset: Unset = []
        back = self.read(written, missing="is left out when it is written (exclude=True?)")
        found = difference(value, back, None, unset)
        if found is not None:
            raise Refusal(found.why, steps(found.trail))
        return written, unset

    def read(self, text: bytes | str, *, missing: str = "is missing") -> Any:
        """The value of a JSON. Refusal if it does not fit; `missing` is what is said of a field that is not there."""
        try:
            return self._load(text, by_alias=False, by_name=True)
        except ValidationError as error:
            raise unfit(error, missing) from error
        except Exception as error:  # what a validator of the user's raises, or a text that is no Unicode
            raise Refusal(f"cannot be read: {type(error).__name__}") from error


def unfit(error: ValidationError, missing: str) -> Refusal:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return Refusal(missing if first["type"] == "missing" else f"does not fit: {first['msg']}", first["loc"])


@dataclass(frozen=True, slots=True)
class NoForm:
    """Why values of an annotation cannot be recorded: a phrase whose subject is the parameter or the result."""

    why: str
    code: bool = False  # its values are code, which is never stored
    undefined: bool = False  # it names something that does not exist (yet)


INJECTED = NoForm("is injected when the task runs")


@dataclass(frozen=True, slots=True)
class Plan:
    """What `Arguments` works out once, when it is first used."""

    signature: Signature
    refused: Mapping[str, NoForm]
    trip: Trip


class Arguments:
    """The codec of one function's arguments; cheap to make, worked out when first used, kept with the task.

    `skip`: parameters that are injected when the task runs: never recorded, refused when passed. `limit`: bytes of text.
    """

    def __init__(
        self, function: Callable[..., Any], *, skip: frozenset[str] = frozenset(), limit: int = LIMIT
    ) -> None:
        self._function = function
        self._skip = skip
        self._limit = limit
        self._plan: Plan | None = None

    def check_declaration(self) -> None:
        """Raise DeclarationError, naming the parameter, if a call could never be recorded, or would record code.

        An annotation that names what is not defined yet is left for the first call.
        """
        plan = self._work_out()
        for key, form in plan.refused.items():
            if form.code or (key in plan.signature.required and not form.undefined):
                raise DeclarationError(
                    f"{plan.signature.name}(): parameter {key!r} cannot be recorded: it {form.why}"
                )
        if not any(form.undefined for form in plan.refused.values()):
            self._plan = plan

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """The text of a call's arguments. ArgumentError, naming the parameter, if they do not fit or do not survive."""
        plan = self._plan or self._first_plan()
        if not (args or kwargs or plan.signature.required):
            return NO_ARGUMENTS
        given = plan.signature.bind(args, kwargs)
        if plan.refused and not plan.refused.keys().isdisjoint(given):
            key = next(key for key in given if key in plan.refused)
            raise ArgumentError(plan.signature.name, key, f"cannot be recorded: it {plan.refused[key].why}")
        try:
            written, unset = plan.trip.write(given)
        except Refusal as refusal:
            key, why = blame(plan.trip, given, refusal)
            raise ArgumentError(plan.signature.name, key, f"cannot be recorded: {why}") from refusal
        return (with_unset(written, unset) if unset else written).decode()

    def decode(self, payload: str) -> Call:
        """The call of a text: `function(*args, **kwargs)`. PayloadError if it does not fit: it is older, or forged."""
        plan = self._plan or self._first_plan()
        try:
            given = plan.trip.read(payload)
            for path, names in given.pop(UNSET, ()):
                unset_again(given, path, names)
            return plan.signature.unbind(given)
        except (
            Refusal,
            LookupError,
        ) as error:  # LookupError: a path that leads nowhere, an argument that is missing
            raise PayloadError(
                f"the recorded arguments of {plan.signature.name}() do not fit it: {error}"
            ) from error

    def _first_plan(self) -> Plan:
        # Two threads may both work it out: they get the same.
        self._plan = plan = self._work_out()
        return plan

    def _work_out(self) -> Plan:
        signature = Signature(self._function, self._skip)
        annotations: dict[str, Any] = {}
        refused: dict[str, NoForm] = {}
        for key in signature.parameters:
            annotation = INJECTED if key in self._skip else looked_up(signature, key)
            objection = annotation if isinstance(annotation, NoForm) else no_form(key, annotation)
            if objection is None:
                annotations[key] = annotation
            else:
                refused[key] = objection
        return Plan(
            signature, refused, Trip(lambda handler: payload_schema(annotations, handler), self._limit)
        )


class Value:
    """The codec of one annotated value, such as a task's result; worked out when first used. `limit`: bytes of text."""

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
        """The text of a value. ResultError if it does not fit the annotation, does not survive, or is too large."""
        trip = self._trip or self._first_trip()
        if isinstance(trip, NoForm):
            raise ResultError(f"the value cannot be recorded: it {trip.why}")
        try:
            # That fields were left unset is not kept: a result is for showing, and its text is its plain JSON.
            return trip.write(value)[0].decode()
        except Refusal as refusal:
            raise ResultError(
                f"the value, {type(value).__qualname__}, cannot be recorded: {refusal}"
            ) from refusal

    def decode(self, payload: str) -> Any:
        """The value of a text. PayloadError if it does not fit the annotation: it is older, or forged."""
        trip = self._trip or self._first_trip()
        if isinstance(trip, NoForm):
            raise PayloadError(f"the recorded value cannot be read: it {trip.why}")
        try:
            return trip.read(payload)
        except Refusal as refusal:
            raise PayloadError(f"the recorded value cannot be read: {refusal}") from refusal

    def _first_trip(self) -> Trip | NoForm:
        try:
            annotation = self._annotation()
        except Exception as error:
            found: Trip | NoForm = undefined(error)
        else:
            found = no_form("", annotation) or Trip(
                lambda handler: schema_of("", annotation, handler), self._limit
            )
        self._trip = found
        return found


def adapter_of(schema: Schema) -> TypeAdapter[Any]:
    class Form:
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
            return schema(handler)

    return TypeAdapter(Form, config=CONFIG)


def payload_schema(annotations: Mapping[str, Any], handler: GetCoreSchemaHandler) -> CoreSchema:
    step = core_schema.union_schema([core_schema.str_schema(), core_schema.int_schema()])
    names = core_schema.list_schema(core_schema.str_schema())
    unset = core_schema.list_schema(core_schema.tuple_schema([core_schema.list_schema(step), names]))
    fields = {key: schema_of(key, annotation, handler) for key, annotation in annotations.items()} | {
        UNSET: unset
    }
    return core_schema.typed_dict_schema(
        {key: core_schema.typed_dict_field(schema, required=False) for key, schema in fields.items()},
        extra_behavior="forbid",
        config=PAYLOAD_CONFIG,
    )


def schema_of(key: str, annotation: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
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
        return signature.annotation(key)
    except Exception as error:  # an annotation is any expression
        return undefined(error)


def undefined(error: Exception) -> NoForm:
    return NoForm(f"has an annotation that cannot be looked up ({error})", undefined=True)


def no_form(key: str, annotation: Any) -> NoForm | None:
    """What speaks against recording values of an annotation; None if nothing does."""
    try:
        code = code_in(adapter_of(lambda handler: schema_of(key, annotation, handler)).core_schema)
    except PydanticUndefinedAnnotation as error:
        return undefined(error)
    except Exception as error:
        if isinstance(error, PydanticUserError) and error.code == "class-not-fully-defined":
            return undefined(error)
        name = getattr(annotation, "__qualname__", annotation)
        return NoForm(f"has no JSON form ({name}); pass what finds it again, such as an id")
    return None if code is None else NoForm(f"may be {code}, and code is never recorded", code=True)


IMPORT_STRING = TypeAdapter(ImportString).core_schema["function"]["function"]


def code_in(schema: Any) -> str | None:
    """What code the values of a schema may hold. An ImportString would import whatever a forged record names."""
    unseen = [schema]
    while unseen:
        node = unseen.pop()
        if isinstance(node, Mapping):
            if node.get("type") == "callable":
                return "a callable"
            if node.get("function") is IMPORT_STRING:
                return "an ImportString"
            unseen.extend(value for name, value in node.items() if name not in ("metadata", "default"))
        elif isinstance(node, list | tuple):
            unseen.extend(node)
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
    return max(sizes, key=sizes.__getitem__), Refusal(f"and the others: together {refusal.why}")


def with_unset(written: bytes, unset: Unset) -> bytes:
    """The payload, an object that is not empty, with one more member."""
    found = [(steps(trail), names) for trail, names in unset]
    return written[:-1] + b"," + to_json({UNSET: found})[1:]
