"""How far an attempt is: what a task says of itself, checked on its line, and as a record keeps it."""

import json
import math
from numbers import Integral, Real
from typing import Any, NamedTuple, Self

LONGEST_MESSAGE = 500  # characters
MOST = 2**53  # from here on JSON's readers no longer agree about numbers


class Progress(NamedTuple):
    """So much is `done`, perhaps of a `total`; `message` is for people."""

    done: float
    total: float | None = None
    message: str | None = None

    @classmethod
    def of(cls, done: Any, total: Any, message: Any) -> Self:
        """Raises TypeError and ValueError for what says nothing of how far something is."""
        progress = cls(_number("done", done), None if total is None else _number("total", total), message)
        if progress.total is not None and progress.done > progress.total:
            raise ValueError(f"progress(): done={done!r} is more than total={total!r}")
        if message is not None:
            _check(message)
        return progress

    @classmethod
    def read(cls, text: str | None) -> Self | None:
        """What a record keeps. None if there is nothing, or not what a task can have said."""
        try:
            said: Any = {} if text is None else json.loads(text)
            return cls.of(said["done"], said.get("total"), said.get("message"))
        except (TypeError, ValueError, LookupError, AttributeError, RecursionError):
            return None

    @property
    def text(self) -> str:
        """As a record keeps it."""
        return json.dumps({name: value for name, value in self._asdict().items() if value is not None})

    @property
    def percent(self) -> int | None:
        """100 only when all is done; None without a total."""
        return math.floor(100 * self.done / self.total) if self.total else None


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"progress(): {name} is a number, not {value!r}")
    number = int(value) if isinstance(value, Integral) else float(value)
    if not 0 <= number <= MOST:
        raise ValueError(f"progress(): {name}={number!r} is not between 0 and 2**53")
    return number


def _check(message: Any) -> None:
    if not isinstance(message, str):
        raise TypeError(f"progress(): the message is a str, not {type(message).__name__}")
    if len(message) > LONGEST_MESSAGE:
        raise ValueError(
            f"progress(): the message has {len(message):,} characters; at most {LONGEST_MESSAGE} are kept "
            "with a record, so say it shorter, or log it"
        )
    try:
        message.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"progress(): the message is no text that can be written down: {error}") from None
