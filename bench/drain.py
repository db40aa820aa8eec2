"""`drain`: how fast does one process run what waits in its ledger?"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

from bench import machine
from bench.errors import BenchError
from bench.figures import Estimate, estimate
from bench.records import all_succeeded, copies, live, only_record, span
from bench.report import Report, Target, progress
from bench.server import Server, wait_until
from bench.sides import Sides

LIMIT = 15_000  # tasks/s
KINDS = {"declared": "declared with @task", "plain": "plain function"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--records", type=int, help="how many wait (default 50,000; 5,000 with --quick)")
    parser.add_argument("--rounds", type=int, help="rounds of each kind (default 6; 1 with --quick)")


def run(options: argparse.Namespace, sides: Sides, directory: Path) -> Report:
    count = options.records or (5_000 if options.quick else 50_000)
    rounds = options.rounds or (1 if options.quick else 6)
    drained: dict[str, list[Drain]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        for kind in KINDS:
            machine.wait_for_quiet(options.patience)
            drained[kind].append(Drain(kind, directory / f"{kind}-{number}", count))
            progress(f"{number + 1}/{rounds} {kind}: {drained[kind][-1].rate:,.0f} tasks/s")
    report = Report(
        "drain",
        f"{count:,} queued records of an async no-op in a ledger, FULL; one uvicorn process starts on it. "
        f"Tasks/s are from the first claim to the last settlement, as the ledger has it. {rounds} rounds.",
    )
    rates = {kind: estimate([drain.rate for drain in drains]) for kind, drains in drained.items()}
    rows = [_row(title, rates[kind], drained[kind]) for kind, title in KINDS.items()]
    report.table("", ["task", "tasks/s", "CPU us/task"], rows)
    report.targets += [
        Target(f"tasks/s, {title}", rates[kind], LIMIT, True, digits=0) for kind, title in KINDS.items()
    ]
    return report


class Drain:
    """One filled ledger, emptied by one fresh process."""

    def __init__(self, kind: str, directory: Path, count: int) -> None:
        self.environ = {"BENCH_DECLARED": "1"} if kind == "declared" else {}
        self.directory = directory
        ledger = self._fill(count)
        with Server("segundo", directory, environ=self.environ) as server:
            wait_until(
                lambda: server.get("/executed")["executed"] >= count,
                120,
                f"{count} tasks have run",
                every=0.1,
            )
            wait_until(lambda: not live(ledger), 30, "every record has ended", every=0.1)
            executed, used = server.get("/executed")["executed"], server.cpu_seconds()
        if executed != count:
            raise BenchError(f"{executed} tasks ran, of {count} records")
        all_succeeded(ledger, count)
        self.rate = count / span(ledger)
        self.cpu = 1e6 * used / count

    def _fill(self, count: int) -> Path:
        """One record by the library itself, from an app that only records; the others are copies of it."""
        with Server(
            "segundo", self.directory, environ={**self.environ, "SEGUNDO_CONCURRENCY": "0"}
        ) as recorder:
            recorder.get("/async_async")
        copies(recorder.ledger, only_record(recorder.ledger), count - 1, due_in=0.0)
        return recorder.ledger


def _row(title: str, rate: Estimate, drains: list[Drain]) -> list[str]:
    return [title, rate.text(0), f"{median(drain.cpu for drain in drains):.0f}"]
