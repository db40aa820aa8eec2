"""Faults that tests put into the ledger and the process that runs tasks, by name."""

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Literal, get_args

from segundo.testing.session import Session
from segundo.testing.trial import Fault

Point = Literal["record", "claim", "settle", "crash after claim", "crash before settle"]


class LedgerFaults:
    """What goes wrong in this test, by name.

    `record`: the calls of a request cannot be recorded, and it is refused with 503. `claim`: nothing can be
    claimed; what is due waits for the next request or drain. `settle`: an outcome cannot be stored; it is
    kept, and stored later. `crash after claim`: the process that runs the task dies before it begins.
    `crash before settle`: it dies when the task has run and nobody knows it yet. After a crash another
    process takes over: a declared task runs again until its `crashes` are spent, a plain one is `failed`,
    reason `WorkerLost`.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @contextmanager
    def at(
        self, point: Point, *, of: Callable[..., Any] | None = None, times: int | None = 1
    ) -> Generator[None]:
        """Inside `with`, the first `times` that the point is reached it happens; None: every time.

        `of`: only attempts of this task crash. (Which of several tasks runs first is not said anywhere.)
        A crash is played in the test mode only: with `real_ledger`, end a real process. RuntimeError there.
        """
        if point not in get_args(Point):
            raise ValueError(f"{point!r} is no fault; there are {', '.join(get_args(Point))}")
        if of is not None and not point.startswith("crash"):
            raise ValueError(f"of=… says whose attempt crashes; {point!r} is about all records")
        trial = self._session.trial
        if trial.folder is not None and point.startswith("crash"):
            raise RuntimeError(
                "a crash is played in the test mode only: with real_ledger, end a real process"
            )
        fault = Fault(point, of, math.inf if times is None else times)
        trial.faults.append(fault)
        try:
            yield
        finally:
            trial.faults.remove(fault)
