"""What a value is, deeply and in type, put so that `==` compares it: the tests' own judge of a round trip.

It shares nothing with segundo.roundtrip, which it is used to test.
"""

import dataclasses
from collections import deque
from collections.abc import Mapping
from datetime import datetime, time
from enum import Enum
from typing import Any

from pydantic import BaseModel


def shape(value: Any) -> Any:
    kind = type(value)
    if kind is int and abs(value) <= 2**53:  # a float comes back for an int where a float is asked for
        return shape(float(value))
    return (f"{kind.__module__}.{kind.__qualname__}", content(value))


def content(value: Any) -> Any:
    if isinstance(value, Enum):
        return repr(value)
    if isinstance(value, BaseModel):
        # dict(model) is its fields and extras
        return [(name, shape(each)) for name, each in sorted(dict(value).items())]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, shape(getattr(value, field.name))) for field in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        return sorted(((shape(key), shape(each)) for key, each in value.items()), key=repr)
    if isinstance(value, set | frozenset):
        return sorted((shape(each) for each in value), key=repr)
    if isinstance(value, list | tuple | deque):
        return [shape(each) for each in value], getattr(value, "maxlen", None)
    if isinstance(value, datetime | time):
        return value.replace(tzinfo=None).isoformat(), value.utcoffset(), value.tzinfo is None
    return vars(value) if type(value).__repr__ is object.__repr__ else repr(value)
