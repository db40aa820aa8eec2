"""What one test has made, seen and set; and the test that runs now."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segundo.errors import LedgerUnavailable
from segundo.testing.seen import FailedCall, SeenCall

logger = logging.getLogger("segundo")


@dataclass(slots=True, eq=False)
class Fault:
    point: str
    of: Callable[..., Any] | None  # whose attempt; None: anybody's
    left: float  # how often it still happens


@dataclass(slots=True)
class Trial:
    """What one test has made, seen and set."""

    calls: list[SeenCall] = field(default_factory=list[SeenCall])
    failures: list[FailedCall] = field(default_factory=list[FailedCall])
    unseen: list[FailedCall] = field(default_factory=list[FailedCall])  # nobody was told of these
    raise_failures: bool = True
    holding: bool = False
    moved: float = 0.0  # seconds
    faults: list[Fault] = field(default_factory=list[Fault])
    folder: Path | None = None  # of real ledgers

    def failed(self, call: FailedCall) -> None:
        self.failures.append(call)
        self.unseen.append(call)

    def strikes(self, point: str, function: Callable[..., Any] | None = None) -> bool:
        """Whether the fault at this point happens, here and now, to an attempt of this function."""
        for fault in self.faults:
            if fault.point == point and fault.left > 0 and fault.of in (None, function):
                fault.left -= 1
                return True
        return False

    def strike(self, point: str) -> None:
        if self.strikes(point):
            raise LedgerUnavailable(f"this test put a fault at {point!r}")


class Present:
    """The test that runs now. Apps that outlive a test go on in the next one's trial."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.trial = Trial()
        self._clock = clock

    def now(self) -> float:
        """Unix seconds, for every ledger."""
        return self._clock() + self.trial.moved

    def raise_unseen(self) -> None:
        """Raise the first error of a task that the test was not told of, and name the others."""
        trial = self.trial
        unseen: Sequence[FailedCall] = tuple(trial.unseen)
        trial.unseen.clear()
        if unseen and trial.raise_failures:
            first, *more = unseen
            if more:
                first.error.add_note(
                    f"failed too: {', '.join(f'{each.task} ({each.reason})' for each in more)}"
                )
            raise first.error

    def told(self, id: str) -> None:
        """Somebody knows of this failure."""
        trial = self.trial
        trial.unseen = [call for call in trial.unseen if call.id != id]

    def not_told(self, error: BaseException) -> bool:
        """An error that was raised where no test sees it is still to be told. False if it is no task's."""
        again = [call for call in self.trial.failures if call.error is error]
        self.trial.unseen += again
        return bool(again)
