"""What is posted to a ledger's writer: changes, who hears of each, and how a batch of them is applied."""

import queue
from collections.abc import Callable, Sequence
from contextlib import suppress
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
    return (batch, False) if _somebody_waits(batch) else _with_company(box, batch)


def _somebody_waits(batch: Sequence[Posted]) -> bool:
    return not all(change.patient for change, _ in batch) or not batch


def _with_company(box: Box, batch: list[Posted]) -> tuple[list[Posted], bool]:
    """A Celery slot's outcome, and its next claim a moment later: one commit, not two."""
    with suppress(queue.Empty):
        item = box.get(timeout=LINGER)
        if item is None:
            return batch, True
        batch += item
    return batch, False


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


def refuse(batch: Sequence[Posted], reason: Exception) -> None:
    for _, done in batch:
        done(None, reason)
