"""How durations, moments, sizes and strangers' texts are put on a terminal."""

import json
from datetime import datetime
from typing import Any

LONGEST = 1e12  # seconds; what is longer is for ever
UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))

# Whatever a task's arguments or an error's message hold, they do not steer the terminal.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_IN_TEXT = {code: written for code, written in _CONTROLS.items() if chr(code) not in "\n\t"}


def duration(seconds: float) -> str:
    """In the largest unit that fits: 350 ms, 12 s, 5 m, 3 h, 40 d."""
    seconds = min(max(seconds, 0.0), LONGEST)
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    size, unit = next(unit for unit in UNITS if seconds >= unit[0])
    return (
        f"{seconds / size:.1f} {unit}" if unit == "s" and seconds < 10 else f"{int(seconds // size)} {unit}"
    )


def age(seconds: float) -> str:
    """As `duration`, for a narrow column: 12s, 5m, 3h, 40d."""
    seconds = min(max(seconds, 0.0), LONGEST)
    size, unit = next((unit for unit in UNITS if seconds >= unit[0]), UNITS[-1])
    return f"{int(seconds // size)}{unit}"


def moment(timestamp: float, now: float) -> str:
    """In local time, and how far that is from now."""
    local = datetime.fromtimestamp(timestamp).astimezone().isoformat(sep=" ", timespec="seconds")
    away = duration(abs(timestamp - now))
    return f"{local} ({away} ago)" if timestamp <= now else f"{local} (in {away})"


def size(count: int) -> str:
    """Bytes in the unit that reads best: 512 B, 4.0 KiB, 1.2 GiB."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def number(count: int, noun: str, nouns: str | None = None) -> str:
    """1 record, 2 records, 1,000 records; 2 crashes, where it is not an s."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def harmless(text: str) -> str:
    """A stranger's text, with the characters that would steer the terminal written out."""
    return text.translate(_IN_TEXT)


def line(text: str) -> str:
    """The same on one line."""
    return text.translate(_CONTROLS)


def pretty(payload: str) -> str:
    """A JSON text, indented; as it stands if it is none."""
    try:
        value: Any = json.loads(payload)
        text = json.dumps(value, indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return harmless(payload)
    return harmless(text.encode("utf-8", "backslashreplace").decode())  # half of a surrogate pair is no text


def shorten(text: str, width: int) -> str:
    """At most `width` characters; the end of a task's name says more than its beginning."""
    return text if len(text) <= width else "…" + text[-(width - 1) :]
