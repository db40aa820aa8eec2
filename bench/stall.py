"""`stall`: does the event loop feel it when another process holds the ledger's write lock for two seconds?"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import machine
from bench.errors import BenchError
from bench.figures import estimate, percentile
from bench.report import Report, Target, progress
from bench.server import Server, wait_until
from bench.sides import Sides

RATE = 100  # requests/s, each with a task
CONNECTIONS = 256  # more than the requests that wait for the lock
BEFORE, AFTER = 1.0, 1.5  # s of load around the lock
ALLOWANCE = 5.0  # ms

HOLDER = """
import sqlite3, sys, time
held, path = float(sys.argv[1]), sys.argv[2]
if held:
    db = sqlite3.connect(path, timeout=10, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
begun = time.monotonic()
time.sleep(held or float(sys.argv[3]))
ended = time.monotonic()
if held:
    db.execute("ROLLBACK")
print(begun, ended)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rounds", type=int, help="rounds, with and without the lock (default 9; 2 with --quick)"
    )
    parser.add_argument("--held", type=float, default=2.0, help="seconds that the lock is held (default 2)")


def run(options: argparse.Namespace, sides: Sides, directory: Path) -> Report:
    rounds = options.rounds or (2 if options.quick else 9)
    lags: dict[bool, list[Lags]] = {True: [], False: []}
    with Server(sides.ours, directory / "app", environ={"BENCH_WATCH_LOOP": "1"}) as server:
        for number in range(rounds):
            machine.wait_for_quiet(options.patience)
            for held in (True, False) if number % 2 else (False, True):
                lags[held].append(Lags(server, options.held, held))
            last = {held: percentile(lags[held][-1].during, 0.999) for held in (True, False)}
            progress(
                f"{number + 1}/{rounds}: p99.9 {last[True]:.2f} ms, without the lock {last[False]:.2f} ms"
            )
    return _report(options.held, rounds, lags, sides)


class Lags:
    """One load on the server, and the loop's lags (ms) while the lock was held and in the second after."""

    def __init__(self, server: Server, length: float, held: bool) -> None:
        server.get("/lags")
        with ThreadPoolExecutor(1) as pool:
            seconds = BEFORE + length + AFTER
            load = pool.submit(
                server.load, "/async_async", seconds=seconds, rate=RATE, connections=CONNECTIONS
            )
            wait_until(lambda: _some_ran(server), 10, "the load has begun")
            begun, ended = _hold(server.ledger, length, held)
            counted = load.result()
        if set(counted["statuses"]) != {"200"}:
            raise BenchError(f"answers {counted['statuses']}, not 200 alone")
        samples = server.get("/lags")
        self.during = [1000 * lag for at, lag in samples if begun <= at <= ended]
        self.after = [1000 * lag for at, lag in samples if ended < at <= ended + 1]
        self.slowest_answer: float = counted["max_ms"]


def _some_ran(server: Server) -> bool:
    """The load has been under way for a while: its first connections and requests are over."""
    before: int = server.get("/executed")["executed"]
    wait_until(lambda: server.get("/executed")["executed"] > before + RATE * BEFORE / 2, 10, "tasks run")
    return True


def _hold(ledger: Path, length: float, held: bool) -> tuple[float, float]:
    """Let another process take the write lock, or only as much time pass; from when to when (monotonic)."""
    command = [sys.executable, "-c", HOLDER, str(length if held else 0), str(ledger), str(length)]
    begun, ended = subprocess.check_output(command, text=True).split()
    return float(begun), float(ended)


def _report(length: float, rounds: int, lags: dict[bool, list[Lags]], sides: Sides) -> Report:
    report = Report(
        "stall",
        f"{RATE} requests/s with a task each, on one process; another process holds SQLite's write lock for "
        f"{length:g} s (`BEGIN IMMEDIATE`), or only as much time passes. {rounds} rounds of each, in "
        "alternating order. The lag is how much too late a 1 ms sleep on the server's event loop ends.",
    )
    rows: list[list[str]] = []
    for held, title in ((False, "no lock"), (True, "lock held")):
        for when in ("during", "after"):
            values = [lag for round_ in lags[held] for lag in getattr(round_, when)]
            shares = [f"{percentile(values, share):.2f}" for share in (0.5, 0.99, 0.999, 1.0)]
            slowest = (
                f"{max(round_.slowest_answer for round_ in lags[held]):,.0f}" if when == "during" else ""
            )
            rows.append(
                [f"{title}, {'the second after' if when == 'after' else 'meanwhile'}", *shares, slowest]
            )
    report.table(
        "", ["event loop's lag", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "slowest answer ms"], rows
    )
    apart = [
        percentile(locked.during, 0.999) - percentile(free.during, 0.999)
        for locked, free in zip(lags[True], lags[False], strict=True)
    ]
    asked = "lag p99.9 with the lock held less that without"
    report.targets.append(Target(asked, estimate(apart), ALLOWANCE, False, " ms"))
    return report
