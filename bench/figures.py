"""Medians, percentiles and intervals, without assuming how the noise is distributed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A median with the order statistics around it that hold the true median with at least `coverage`."""

    median: float
    low: float
    high: float
    coverage: float
    count: int

    def text(self, digits: int = 2) -> str:
        spread = f"{self.low:,.{digits}f}–{self.high:,.{digits}f}"
        return f"{self.median:,.{digits}f} ({spread}, {self.coverage:.0%}, n={self.count})"


def estimate(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The median of paired figures with its interval.

    The interval runs from the k-th smallest to the k-th largest value. Whatever the distribution, the true
    median lies between them unless fewer than k values fall on one side of it, a question of tossing coins.
    Below six values no interval reaches 95 %, so the widest is given with the coverage that it has.
    """
    ordered = sorted(values)
    count = len(ordered)
    if not count:
        raise ValueError("no values to estimate from")
    rank = 1
    while rank < (count + 1) // 2 and _coverage(count, rank + 1) >= confidence:
        rank += 1
    return Estimate(
        statistics.median(ordered), ordered[rank - 1], ordered[-rank], _coverage(count, rank), count
    )


def _coverage(count: int, rank: int) -> float:
    tail = sum(math.comb(count, k) for k in range(rank))
    return max(0.0, float(1 - tail / 2 ** (count - 1)))


def estimate_of(
    statistic: Callable[[Sequence[float]], float], blocks: Sequence[Sequence[float]], confidence: float = 0.95
) -> Estimate:
    """The statistic of each block, as one estimate: for percentiles that single rounds can hold."""
    return estimate([statistic(block) for block in blocks], confidence)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0.5, 0.99, ...) of all values do not exceed."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values to take a percentile of")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
