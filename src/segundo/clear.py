"""How values are written in clear: secrets as they are, and fields too that their model leaves out."""

from collections import deque
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, cast

from pydantic import BaseModel, RootModel, Secret, SecretBytes, SecretStr
from pydantic_core import to_json

BytesMode = Literal["base64", "utf8"]
BYTES_MODES: tuple[BytesMode, ...] = ("base64", "utf8")  # a model of the user's reads utf8, all else base64


def in_clear(value: object, bytes_mode: BytesMode) -> bytes:
    """The JSON of a value with all that is in it. Whether it comes back is for the caller to try."""
    return to_json(unveiled(value), bytes_mode=bytes_mode, inf_nan_mode="strings")


def unveiled(value: Any) -> Any:
    """A value as plain data, with no model's serializer asked."""
    if isinstance(value, Secret | SecretStr | SecretBytes):
        return unveiled(cast("Any", value).get_secret_value())
    if isinstance(value, RootModel):
        return unveiled(cast("Any", value).root)
    if isinstance(value, BaseModel):
        names = type(value).__pydantic_fields__
        held = {name: each for name, each in value.__dict__.items() if name in names}
        return unveiled(held | (value.__pydantic_extra__ or {}))
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: unveiled(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", cast("object", value))
        return {key: unveiled(each) for key, each in items.items()}
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [unveiled(each) for each in cast("list[Any]", value)]
    return value
