"""`fair`: four worker processes write to one ledger; is any refused, and does any starve?"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.records import all_succeeded, live
from bench.report import Report, Target
from bench.server import Server, wait_until
from bench.sides import Sides

WORKERS = 4
CONNECTIONS = 64
SHARES_LIMIT = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, help="length of the load (default 30; 3 with --quick)")


def run(options: argparse.Namespace, sides: Sides, directory: Path) -> Report:
    seconds = options.seconds or (3.0 if options.quick else 30.0)
    counts = directory / "commits"
    counts.mkdir()
    server = Server(sides.ours, directory / "app", workers=WORKERS, environ={"BENCH_COMMITS": str(counts)})
    with server:
        counted = server.load("/which", seconds=seconds, connections=CONNECTIONS)
        wait_until(lambda: not live(server.ledger), 120, "every record has ended", every=0.2)
    processes = {int(path.stem): json.loads(path.read_text()) for path in counts.iterdir()}
    answered = counted["statuses"].get("200", 0)
    executed = sum(process["executed"] for process in processes.values())
    if executed != answered or len(processes) != WORKERS:
        raise BenchError(
            f"{answered} requests were answered and {executed} tasks ran, in {len(processes)} processes"
        )
    all_succeeded(server.ledger, answered)
    return _report(seconds, counted, processes)


def _report(seconds: float, counted: dict[str, Any], processes: dict[int, dict[str, int]]) -> Report:
    report = Report(
        "fair",
        f"`uvicorn --workers {WORKERS}` on one ledger, FULL, {CONNECTIONS} connections, {seconds:g} s: "
        f"{counted['rate']:,.0f} requests/s, p99 {counted['p99_ms']:,.1f} ms. The kernel spreads the "
        "connections, so answers may be uneven; commits show whether each process gets its turn.",
    )
    answers = {json.loads(body)["pid"]: count for body, count in counted["bodies"].items() if "pid" in body}
    commits = [process["commits"] for process in processes.values()]
    rows = [
        [
            f"process {number}",
            f"{answers.get(pid, 0):,}",
            f"{process['executed']:,}",
            f"{process['commits']:,}",
            f"{process['commits'] / sum(commits):.0%}",
        ]
        for number, (pid, process) in enumerate(sorted(processes.items()), start=1)
    ]
    report.table("", ["", "answers", "tasks run", "commits", "share of commits"], rows)
    refused = counted["answered"] - counted["statuses"].get("200", 0)
    report.targets += [
        Target("answers that were not 200", refused, 0, False, digits=0),
        Target(
            "largest share of commits over the smallest",
            max(commits) / min(commits),
            SHARES_LIMIT,
            False,
            "x",
        ),
    ]
    return report
