"""`python -m bench NAME`; `python -m bench --help` lists the names."""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

from bench import machine, report, sides
from bench.errors import BenchError

BENCHMARKS = {
    "request": "an endpoint with one no-op task, beside stock BackgroundTasks",
    "drain": "how fast one process runs 50,000 waiting records",
    "start": "on an idle server, from the response to the start of its task",
    "backlog": "the cost of a claim with 1,000,000 due and 1,000,000 future records",
    "stall": "the event loop's lag while another process holds the ledger's write lock",
    "idle": "what an app that does nothing costs",
    "fair": "four worker processes on one ledger: refusals, and shares of commits",
    "worker": "no-op tasks a second on a Celery worker, beside bare Celery",
    "broker-down": "requests and the loop's lag while the broker refuses, or its link drops packets",
    "scale": "a simulation of many hosts, from what was measured on one",
    "publish": "messages a second to a broker, beside Celery's own .delay()",
    "delay": "an endpoint with one task for Celery, beside one that calls Celery's own .delay()",
}
WITH_CONTROL = {"request", "start", "stall", "idle"}
WORK = Path(__file__).with_name(".work")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Segundo on this machine.")
    commands = parser.add_subparsers(dest="name", required=True)
    for name, about in BENCHMARKS.items():
        command = commands.add_parser(name, help=about, description=about)
        command.add_argument(
            "--quick", action="store_true", help="seconds, to see that it works; writes no results"
        )
        command.add_argument("--strict", action="store_true", help="exit 1 when a target is not met")
        command.add_argument(
            "--no-write", action="store_true", help="print only, leave the results file alone"
        )
        command.add_argument("--results", type=Path, default=report.RESULTS, help="the file to write to")
        command.add_argument(
            "--dir", type=Path, default=WORK, help="where the ledgers go: a directory on a disk"
        )
        command.add_argument(
            "--patience",
            type=float,
            default=0.0,
            help="seconds to wait, before each round, for a quiet machine",
        )
        if name in WITH_CONTROL:
            command.add_argument(
                "--control", action="store_true", help="stock on both sides: ratios must be about 1"
            )
        _module(name).add_arguments(command)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    directory = options.dir.resolve() / options.name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        machine.require(directory)
        contenders = sides.choose(getattr(options, "control", False))
        found: report.Report = _module(options.name).run(options, contenders, directory)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(found.text())
    if not options.quick and not options.no_write:
        name = _section_name(options)
        found.name = name
        report.write(name, found.section(arguments, directory), options.results)
    shutil.rmtree(directory, ignore_errors=True)  # after an error it stays, to be looked at
    return 1 if options.strict and not found.all_met else 0


def _module(name: str) -> Any:
    return importlib.import_module(f"bench.{name.replace('-', '_')}")


def _section_name(options: argparse.Namespace) -> str:
    """Runs that measure something else get a section of their own."""
    apart = {"control": "control", "declared": "declared", "fsync_delay_us": "slow disk"}
    extra = [title for option, title in apart.items() if getattr(options, option, None)]
    extra += [value for option in ("endpoint", "broker") if (value := getattr(options, option, None))]
    return ", ".join([options.name, *extra])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
