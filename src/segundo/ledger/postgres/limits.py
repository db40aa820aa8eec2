"""What the tables on a server cannot hold of what others may have written into a file."""

import math
from collections.abc import Mapping

from segundo.record import LARGEST, LONGEST, unstorable

INDEXED = {**dict.fromkeys(("id", "task", "same_as", "before", "after"), LONGEST["name"]), **LONGEST}  # bytes
ANY = 2**28  # bytes of any other text
SHOWN = 200  # characters of what is wrong


def flaw(columns: Mapping[str, object]) -> str | None:
    """The first of these that the server would not take, and why; None if it would take all."""
    for name, value in columns.items():
        wrong = _wrong(name, value)
        if wrong is not None:
            return f"its {name} {wrong}"[:SHOWN]
    return None


def _wrong(name: str, value: object) -> str | None:
    if isinstance(value, str):
        return unstorable(value, INDEXED.get(name, ANY))
    if isinstance(value, int) and not -LARGEST <= value <= LARGEST:
        return f"is {value}, and may be {LARGEST} at most"
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}, and no number"
    return None
