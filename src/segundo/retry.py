"""When a failed attempt is followed by another: the policy of one task, as data and a pure function."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from segundo.duration import is_seconds
from segundo.errors import DeclarationError, RetryLater
from segundo.record import LARGEST, is_count

WAITS = ("constant", "linear", "exponential")


@dataclass(frozen=True, slots=True)
class Retry:
    """Run a failed call again, `attempts` times in all (None: for ever).

    `wait` is "constant" (`base` seconds), "linear" (`base` × failures), "exponential"
    (`base` × 2^(failures-1)), or a function from the number of failures (1 after the first) to seconds.
    No wait is longer than `ceiling` seconds; `jitter` then takes a random part of its upper half, so that
    calls which failed together do not come back together. Only exceptions in `on`, and not in `give_up_on`,
    are tried again; anything else ends the record at once.
    """

    attempts: int | None = 3
    wait: Literal["constant", "linear", "exponential"] | Callable[[int], float] = "exponential"
    on: tuple[type[BaseException], ...] = (Exception,)
    give_up_on: tuple[type[BaseException], ...] = ()
    base: float = 1.0
    ceiling: float = 3600.0
    jitter: bool = True

    def __post_init__(self) -> None:
        if self.attempts is not None:
            if not is_count(self.attempts, least=1):
                raise DeclarationError(
                    f"Retry(attempts=…) is a whole number, 1 to {LARGEST:,}; None means without limit"
                )
            object.__setattr__(self, "attempts", int(self.attempts))
        if not callable(self.wait) and self.wait not in WAITS:
            raise DeclarationError(f"Retry(wait=…) must be one of {', '.join(WAITS)} or a function")
        if not all(is_seconds(value) and value >= 0 for value in (self.base, self.ceiling)):
            raise DeclarationError("Retry(base=…, ceiling=…) are seconds and cannot be negative")
        object.__setattr__(self, "on", _exceptions("on", self.on))
        object.__setattr__(self, "give_up_on", _exceptions("give_up_on", self.give_up_on))

    def covers(self, error: BaseException) -> bool:
        """Whether this error may be followed by another attempt."""
        if isinstance(error, RetryLater):
            return True
        return isinstance(error, self.on) and not isinstance(error, self.give_up_on)

    def delay(self, failures: int, error: BaseException, chance: random.Random) -> float:
        """Seconds until the next attempt, after `failures` failures (1 or more)."""
        if isinstance(error, RetryLater):
            return error.seconds
        wait = min(self._wait(failures), self.ceiling)
        return wait * chance.uniform(0.5, 1.0) if self.jitter else wait

    def _wait(self, failures: int) -> float:
        if callable(self.wait):
            return max(0.0, float(self.wait(failures)))
        if self.wait == "constant":
            return self.base
        if self.wait == "linear":
            return self.base * failures
        return self.base * 2.0 ** min(failures - 1, 64)  # 64 doublings pass any ceiling; more would overflow


def _exceptions(
    name: str, value: type[BaseException] | tuple[type[BaseException], ...]
) -> tuple[type[BaseException], ...]:
    classes = value if isinstance(value, tuple) else (value,)
    for item in classes:
        if not _is_exception(item):
            raise DeclarationError(f"Retry({name}=…) takes exception classes, not {item!r}")
    return classes


def _is_exception(item: object) -> bool:
    return isinstance(item, type) and issubclass(item, BaseException)


NEVER = Retry(attempts=1)
