"""The two contenders of a run."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from bench.errors import BenchError


@dataclass(frozen=True)
class Sides:
    """`ours` is measured against `stock`; in a control run both are stock, and ratios must be about 1."""

    ours: str
    stock: str = "stock"

    @property
    def control(self) -> bool:
        return self.ours == self.stock

    @property
    def name_of_ours(self) -> str:
        return "BackgroundTasks again" if self.control else "Segundo"

    @property
    def name_of_stock(self) -> str:
        return "BackgroundTasks"


def choose(control: bool) -> Sides:
    if control:
        return Sides("stock")
    if importlib.util.find_spec("segundo") is None:
        raise BenchError("segundo is not installed here; `--control` measures stock against stock")
    return Sides("segundo")
