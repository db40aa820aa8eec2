"""One writer and one reader of JSON, made by Pydantic, and the proof that they agree about a value."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

from pydantic import ConfigDict, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema

from segundo.clear import BYTES_MODES, in_clear
from segundo.roundtrip import InClear, Step, Unset, difference, place, steps

CONFIG = ConfigDict(
    ser_json_bytes="base64",
    val_json_bytes="base64",
    ser_json_inf_nan="strings",
    hide_input_in_errors=True,  # values do not belong in logs
)

MANY = 1000  # things wrong with one value, beyond which none is named

Schema: TypeAlias = Callable[[GetCoreSchemaHandler], CoreSchema]


class Refusal(Exception):
    """A value does not survive: `path` leads to the part that does not, `why` is a phrase about it.

    `bare`: the phrase without what others say of the value, such as a validator of the user's.
    """

    def __init__(self, why: str, path: tuple[Step, ...] = (), *, bare: str | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.path = path
        self._bare = bare

    def hushed(self) -> "Refusal":
        """The same, with nothing in it that may come from the value, and no word of how it came about."""
        return Refusal(self._bare or self.why, self.path[:1])

    def __str__(self) -> str:
        return f"its {place(self.path)} {self.why}" if self.path else f"it {self.why}"


class Trip:
    """One writer and one reader made by Pydantic, and the proof that they agree about a value."""

    def __init__(self, schema: Schema, limit: int) -> None:
        adapter = adapter_of(schema)
        self._dump = adapter.serializer.to_json
        self._load = adapter.validator.validate_json
        self._limit = limit

    def write(self, value: Any, *, proven: bool = False) -> tuple[bytes, Unset]:
        """The JSON of a value, and the models in it with fields unset. Refusal if it would not come back.

        `proven`: the caller knows that it comes back, and it is not tried.
        """
        try:
            # Pydantic's warnings of unexpected types stay off: what comes back is judged, and more strictly.
            written = self._dump(value, by_alias=False, round_trip=True, warnings=False)
        except Exception as error:  # also what a serializer of the user's raises
            raise unwritable(error) from error
        if proven and len(written) <= self._limit:
            return written, []
        return self._prove(value, written, [])

    def _prove(self, value: Any, written: bytes, unset: Unset) -> tuple[bytes, Unset]:
        """Read it again, and compare."""
        if len(written) > self._limit:
            size = f"{len(written):,} bytes of JSON, and the limit is {self._limit:,}"
            raise Refusal(f"is {size}; store it, and pass what finds it again")
        back = self.read(written, missing="is left out when it is written (exclude=True?)")
        found = difference(value, back, None, unset)
        if found is not None:
            raise Refusal(found.why, steps(found.trail))
        return written, unset

    def read(self, text: bytes | str, *, missing: str = "is missing") -> Any:
        """The value of a JSON. Refusal if it does not fit; `missing` is what it says of an absent field.

        What is larger than anything that is ever written, the names of unset fields included, is not looked
        at: reading holds up the event loop (test_no_payload_takes_long_or_much_memory_to_be_read).
        """
        if len(text) > 2 * self._limit:
            raise Refusal(f"is {len(text):,} characters of JSON, and nobody records as many")
        try:
            return self._load(text, by_alias=False, by_name=True)
        except ValidationError as error:
            raise unfit(error, missing) from error
        except Exception as error:  # what a validator of the user's raises; a text that is not Unicode
            raise Refusal(f"cannot be read: {type(error).__name__}") from error


class SecretTrip(Trip):
    """The same for secret values: written in clear and whole, and refused without a word of theirs."""

    def write(self, value: Any, *, proven: bool = False) -> tuple[bytes, Unset]:
        with suppress(Refusal):
            return super().write(value, proven=proven)
        refusals: list[Refusal] = []
        for bytes_mode in BYTES_MODES:
            try:
                return self._prove(value, in_clear(value, bytes_mode), InClear())
            except Refusal as refusal:
                refusals.append(refusal.hushed())
            except Exception as error:
                refusals.append(unwritable(error).hushed())
        raise refusals[0]

    def read(self, text: bytes | str, *, missing: str = "is missing") -> Any:
        try:
            return super().read(text, missing=missing)
        except Refusal as refusal:
            hushed = refusal.hushed()
        raise hushed


def unwritable(error: Exception) -> Refusal:
    bare = "cannot be written as JSON"
    return Refusal(f"{bare}: {first_line(error)}", bare=bare)


def unfit(error: ValidationError, missing: str) -> Refusal:
    count = error.error_count()
    if count > MANY:  # to describe them all takes far longer than to find them
        return Refusal(f"does not fit in {count:,} places")
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "missing":
        return Refusal(missing, first["loc"])
    return Refusal(f"does not fit: {first['msg']}", first["loc"], bare=f"does not fit ({first['type']})")


def adapter_of(schema: Schema) -> TypeAdapter[Any]:
    class Form:
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
            return schema(handler)

    return TypeAdapter(Form, config=CONFIG)


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
