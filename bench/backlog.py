"""`backlog`: does a claim cost more when millions of records wait?"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench import machine
from bench.errors import BenchError
from bench.figures import estimate
from bench.records import copies
from bench.report import Report, Target, progress
from bench.sides import Sides

if TYPE_CHECKING:
    from segundo.ledger.sqlite import SQLiteLedger

LIMIT = 1.5
DAY = 86_400.0
OWNER = "bench"
SIZES = (1, 100)  # records that one claim asks for
DURABILITIES = ("full", "normal")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--records", type=int, help="due, and as many future (default 1,000,000; 20,000 with --quick)"
    )
    parser.add_argument("--few", type=int, default=1_000, help="the same in the small ledger (default 1,000)")
    parser.add_argument("--rounds", type=int, help="rounds of 20 claims (default 12; 3 with --quick)")


def run(options: argparse.Namespace, sides: Sides, directory: Path) -> Report:
    many = options.records or (20_000 if options.quick else 1_000_000)
    rounds = options.rounds or (3 if options.quick else 12)
    files = {count: directory / f"{count}.db" for count in (options.few, many)}
    for count, path in files.items():
        begun = time.perf_counter()
        asyncio.run(_fill(path, count))
        progress(f"{count:,} due and {count:,} future records: {time.perf_counter() - begun:.0f} s to make")
    cases = [
        asyncio.run(_compare(files[options.few], files[many], durability, size, rounds, options.patience))
        for durability in DURABILITIES
        for size in SIZES
    ]
    return _report(options.few, many, rounds, cases, files[many].stat().st_size)


@dataclass
class Case:
    """Claims of one size, on the ledger with few records and on the one with many, in turn."""

    durability: str
    size: int
    few: list[float] = field(default_factory=list)  # ms, the median claim of each round
    many: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        return [many / few for few, many in zip(self.few, self.many, strict=True)]


async def _fill(path: Path, count: int) -> None:
    from segundo.ledger.sqlite import SQLiteLedger
    from segundo.record import Call, new_id

    ledger = SQLiteLedger(path)
    await ledger.open()
    template = Call(
        id=new_id(), task="bench.apps:noop_async", arguments='{"email": "ada@example.com"}', held=False
    )
    await ledger.record([template], owner=OWNER)
    await ledger.close()
    copies(path, template.id, count - 1, due_in=0.0)
    copies(path, template.id, count, due_in=DAY)


async def _compare(few: Path, many: Path, durability: str, size: int, rounds: int, patience: float) -> Case:
    from segundo.ledger.sqlite import SQLiteLedger

    case = Case(durability, size)
    async with AsyncExitStack() as stack:
        ledgers = []
        for path in (few, many):
            ledger = SQLiteLedger(path, durability="full" if durability == "full" else "normal")
            await ledger.open()
            stack.push_async_callback(ledger.close)
            ledgers.append(ledger)
        for number in range(rounds + 1):
            machine.wait_for_quiet(patience)
            took: tuple[list[float], list[float]] = [], []
            for _ in range(20):
                for ledger, times in zip(ledgers, took, strict=True):
                    times.append(await _claim_and_return(ledger, size))
            if number:  # the first one warms the caches
                case.few.append(median(took[0]))
                case.many.append(median(took[1]))
    progress(f"{durability}, {size} at once: {median(case.few):.2f} ms, with many {median(case.many):.2f} ms")
    return case


async def _claim_and_return(ledger: SQLiteLedger, size: int) -> float:
    """How long a claim took, in ms; what it took goes back behind the others, so the ledger stays as full."""
    from segundo.ledger import Settlement
    from segundo.record import State

    begun = time.perf_counter()
    records = await ledger.claim(OWNER, limit=size)
    took = time.perf_counter() - begun
    back = [
        Settlement(id=record.id, claim=record.claim, state=State.QUEUED, counted=False) for record in records
    ]
    settled = await ledger.settle(back)
    if len(records) != size or not all(settled):
        raise BenchError(f"claimed {len(records)} of {size} records, gave back {sum(settled)}")
    return 1000 * took


def _report(few: int, many: int, rounds: int, cases: list[Case], bytes_: int) -> Report:
    report = Report(
        "backlog",
        f"A claim through the ledger's protocol, its commit included, on a ledger with {many:,} due and "
        f"{many:,} future records ({bytes_ / 2**20:,.0f} MiB) and on one with {few:,} of each, in turn; "
        f"what was claimed goes back. {rounds} rounds of 20 claims on each.",
    )
    rows = [
        [f"{case.durability}, {case.size} at once", f"{median(case.few):.3f}", f"{median(case.many):.3f}"]
        for case in cases
    ]
    report.table("", ["durability, records a claim", f"ms with {few:,}", f"ms with {many:,}"], rows)
    report.targets += [
        Target(
            f"{case.durability}, {case.size} at once: cost over that with {few:,}",
            estimate(case.ratios),
            LIMIT,
            False,
            "x",
        )
        for case in cases
    ]
    return report
