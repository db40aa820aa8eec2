"""`idle`: the CPU that an app takes when nobody asks it for anything."""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from pathlib import Path

from bench.report import Report, Target
from bench.server import Server
from bench.sides import Sides

LIMIT = 0.5  # % of one core
SETTLES = 2.0  # s after start-up before the count begins


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, help="how long to look on (default 20; 4 with --quick)")


def run(options: argparse.Namespace, sides: Sides, directory: Path) -> Report:
    seconds = options.seconds or (4.0 if options.quick else 20.0)
    slices = 4 if options.quick else 10
    with ExitStack() as stack:
        names = {sides.name_of_stock: sides.stock, sides.name_of_ours: sides.ours}
        servers = [stack.enter_context(Server(side, directory / name)) for name, side in names.items()]
        for server in servers:  # an app that has served a request and run a task, and then has nothing to do
            server.load("/async_async", seconds=0.5)
        time.sleep(SETTLES)
        shares = _watch(servers, seconds / slices, slices)
    report = Report(
        "idle", f"One process that has served some requests, watched for {seconds:g} s. % of one core."
    )
    rows = [
        [name, f"{sum(share) / slices:.3f}", f"{max(share):.3f}"]
        for name, share in zip(names, shares, strict=True)
    ]
    report.table("", ["app", "CPU %", f"busiest {seconds / slices:g} s"], rows)
    if sides.control:
        apart = abs(sum(shares[0]) - sum(shares[1])) / slices
        report.targets.append(Target("distance of the two", apart, 0.1, False, " %"))
    else:
        report.targets.append(Target("CPU of an idle app", sum(shares[1]) / slices, LIMIT, False, " %"))
    return report


def _watch(servers: list[Server], length: float, slices: int) -> list[list[float]]:
    """The share of a core that each server took, slice by slice; all are watched over the same seconds."""
    shares: list[list[float]] = [[] for _ in servers]
    for _ in range(slices):
        begun, before = time.perf_counter(), [server.cpu_seconds() for server in servers]
        time.sleep(length)
        took = time.perf_counter() - begun
        for share, server, used in zip(shares, servers, before, strict=True):
            share.append(100 * (server.cpu_seconds() - used) / took)
    return shares
