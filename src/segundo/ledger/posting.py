"""What is posted to a ledger's writer: changes, who hears of each, and how a batch of them is applied."""

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from segundo.errors import LedgerUnavailable, SegundoError
from segundo.ledger.changes import Change
from segundo.ledger.transaction import Transaction

Done = Callable[[Any, BaseException | None], None]  # called in the writer's thread: result, error
Posted = tuple[Change[Any], Done]
Box = queue.SimpleQueue[list[Posted] | None]  # None: stop, once what was posted before is applied

BATCH = 512
LINGER = 0.005  # seconds that what nobody waits for may wait for company

SKIPPED = object()  # the result of a change that nobody wanted any more when its turn came


def take(box: Box, pause: float | None) -> tuple[list[Posted], bool]:
    """What waits now, and whether to stop; if nothing does, wait for it up to `pause` seconds."""
    batch: list[Posted] = []
    try:
        item = box.get(timeout=pause) if pause else box.get_nowait()
        while item is not None and len(batch) < BATCH:
            batch += item
            item = box.get_nowait()
        if item is None:
            return batch, True
        batch += item
    except queue.Empty:
        pass
    return batch, False


class Kept:
    """Changes that nobody waits for: they go with the next that is posted, or by themselves a moment later.

    A Celery slot's outcome, and its next claim: one commit, not two. Filled and emptied by any thread; who
    writes minds it, and is woken for the first only: while more come, it looks again by itself.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[float, Posted]] = []
        self._using = threading.Lock()
        self._minded = False
        self._busy = False  # something has come since it was last looked

    def add(self, posted: Posted) -> bool:
        """Whether who writes is to be woken."""
        with self._using:
            self._kept.append((time.monotonic(), posted))
            self._busy = True
            minded, self._minded = self._minded, True
            return not minded

    def take(self) -> list[Posted]:
        with self._using:
            kept, self._kept = self._kept, []
            return [posted for _, posted in kept]

    def is_due(self) -> bool:
        with self._using:
            return self._until_due() == 0

    def until_look(self) -> float | None:
        """For who minds: seconds until it has to look; None: it is woken."""
        with self._using:
            self._minded, self._busy = bool(self._kept) or self._busy, False
            return self._until_due() if self._minded else None

    def _until_due(self) -> float:
        return max(0.0, self._kept[0][0] + LINGER - time.monotonic()) if self._kept else LINGER


def apply(changes: Sequence[Change[Any]], tx: Transaction) -> list[Any]:
    """Apply a batch kind by kind, in the kinds' order; results come in the order of `changes`."""
    results: list[Any] = [SKIPPED] * len(changes)
    wanted = [index for index, change in enumerate(changes) if change.begin()]
    order = sorted(wanted, key=lambda index: (changes[index].order, type(changes[index]).__name__))
    for kind, group in groupby(order, key=lambda index: type(changes[index])):
        indexes = list(group)
        for index, result in zip(indexes, kind.apply_all([changes[i] for i in indexes], tx), strict=True):
            results[index] = result
    return results


def answer(done: Done, result: Any) -> None:
    if result is SKIPPED:
        done(None, LedgerUnavailable("given up before it was begun; nothing was changed"))
    elif isinstance(result, SegundoError):  # it changed nothing, so the others need not be undone
        done(None, result)
    else:
        done(result, None)


def give(results: Mapping[Change[Any], Any], batch: Sequence[Posted]) -> list[Posted]:
    """Answer those that have a result; the others."""
    others: list[Posted] = []
    for change, done in batch:
        if change in results:
            answer(done, results[change])
        else:
            others.append((change, done))
    return others


def refuse(batch: Sequence[Posted], reason: Exception) -> None:
    for _, done in batch:
        done(None, reason)
