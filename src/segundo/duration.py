"""Durations as people give them, in seconds in the end, and such that a ledger can store them."""

import math
import re
from datetime import timedelta

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def seconds(duration: str | float | timedelta) -> float:
    """A duration in seconds: a number, a timedelta, or a text such as "90s", "15m", "12h", "30d", "2w"."""
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if isinstance(duration, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw]?)\s*", duration)
        if match is None:
            raise ValueError(
                f"a duration is a number of seconds, or a text such as 90s, 15m, 12h, 30d; not {duration!r}"
            )
        return float(match[1]) * UNITS[match[2] or "s"]
    return float(duration)


def is_seconds(value: object) -> bool:
    """Whether it is a number that a ledger can add to a time, and store."""
    return isinstance(value, int | float) and math.isfinite(value)


def check_seconds(name: str, value: object) -> None:
    if not is_seconds(value):
        raise ValueError(f"options({name}=…) takes a finite number of seconds; not {value!r}")
