"""What can be set, and where each value came from: an argument, the environment, or the default."""

import logging
import math
import operator
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from segundo.duration import seconds
from segundo.errors import ConfigurationError

logger = logging.getLogger("segundo")

DEFAULTS: dict[str, object] = {
    "ledger": "segundo.db",
    "broker": None,
    "window": 1000,
    "concurrency": 64,
    "durability": "full",
    "record_timeout": 5.0,
    "grace": 30.0,
    "retention": "30d",
    "freeze": True,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`ledger`: a path, a server's URL, or "memory://". `broker`: of Celery's workers; None: there is none.
    `window`: published and unclaimed records of a queue, at most.

    Times are in seconds; with `retention` None records stay for ever."""

    ledger: str
    broker: str | None
    window: int
    concurrency: int
    durability: Literal["full", "normal"]
    record_timeout: float
    grace: float
    retention: float | None
    freeze: bool
    queues: tuple[str, ...] | None = None  # what this process runs; None: all
    by_message: bool = False  # this is a Celery worker's process: it runs what messages name
    sources: Mapping[str, str] = field(repr=False)

    def changed(self, source: str, **values: object) -> "Settings":
        """These settings, but for `values`, which came from `source`."""
        return replace(self, **values, sources={**self.sources, **dict.fromkeys(values, source)})  # type: ignore[arg-type]  # by name

    def of_worker(self, *, queues: Sequence[str] | None, concurrency: int | None) -> "Settings":
        """Those of a process that runs these queues (None: all), so many records at once.

        Without `concurrency` it is the app's own, or the default where the app's servers only record (0).
        """
        if concurrency is None and self.concurrency == 0:
            concurrency = settings({}, {}).concurrency
        changed = self if concurrency is None else self.changed("worker", concurrency=concurrency)
        return changed if queues is None else changed.changed("worker", queues=tuple(queues))

    def log(self) -> None:
        for name, source in self.sources.items():
            logger.info("setting %s = %s (%s)", name, without_password(getattr(self, name)), source)


def settings(arguments: Mapping[str, object], environment: Mapping[str, str] | None = None) -> Settings:
    """Each setting from its argument, else from SEGUNDO_<NAME>, or its default. Raises ConfigurationError."""
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, default in DEFAULTS.items():
        value, source = _find(name, arguments.get(name), environment, default)
        try:
            values[name] = _PARSERS[name](value)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"{source}: {name} cannot be {value!r}: {error}") from error
        sources[name] = source
    return Settings(**values, sources=sources)


def _find(name: str, argument: object, environment: Mapping[str, str], default: object) -> tuple[object, str]:
    variable = f"SEGUNDO_{name.upper()}"
    if argument is not None:
        return argument, "argument"
    if environment.get(variable):
        return environment[variable], variable
    return default, "default"


def _ledger(value: str | os.PathLike[str]) -> str:
    text = os.fspath(value)
    if text == "memory://":
        return text
    scheme, separator, rest = text.partition("://")
    if scheme in ("postgresql", "postgres") and separator:
        return text
    if separator and scheme != "sqlite":
        raise ValueError("a ledger is a path, sqlite:///path, postgresql://host/database, or memory://")
    path = rest.removeprefix("/") if separator else text
    return str(Path(path).absolute())


def _broker(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError("it is the address of a broker, as in amqp://… or redis://…")
    return value


def without_password(value: object) -> object:
    """A setting as a log may have it: of an address, without its password."""
    return re.sub(r"(://[^:@/]*):[^@/]*@", r"\1:***@", value) if isinstance(value, str) else value


def _concurrency(value: Any) -> int:
    number = int(value) if isinstance(value, str) else operator.index(value)
    if number < 0:
        raise ValueError("it is the number of records run at once; 0 only records")
    return number


def _window(value: Any) -> int:
    number = int(value) if isinstance(value, str) else operator.index(value)
    if number < 1:
        raise ValueError("it is the number of records of a queue in the broker, at most")
    return number


def _durability(value: Any) -> str:
    if value not in ("full", "normal"):
        raise ValueError('it is "full" or "normal"')
    return str(value)


def _positive(value: Any) -> float:
    number = seconds(value)
    if not 0 < number < math.inf:
        raise ValueError("it is a time and must be more than 0")
    return number


def _grace(value: Any) -> float:
    number = seconds(value)
    if not 0 <= number < math.inf:
        raise ValueError("it is a time and cannot be negative")
    return number


def _retention(value: Any) -> float | None:
    return None if value in ("forever", "for ever") else _positive(value)


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("1", "true", "yes", "on"):
        return True
    if str(value).lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("it is on or off")


_PARSERS: dict[str, Any] = {
    "ledger": _ledger,
    "broker": _broker,
    "window": _window,
    "concurrency": _concurrency,
    "durability": _durability,
    "record_timeout": _positive,
    "grace": _grace,
    "retention": _retention,
    "freeze": _flag,
}
