"""`delay`: an endpoint with one task for Celery, through Segundo and by Celery's own `.delay()`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import brokers, machine
from bench.errors import BenchError
from bench.report import Report, Target, progress
from bench.server import ROOT, Server, wait_until
from bench.sides import Sides
from scripts.services import Service

LIMIT = 2.0
BEHIND = 5.0  # seconds
CONNECTIONS = 64
LAG = """SELECT coalesce(extract(epoch FROM clock_timestamp()) - min(run_at), 0) FROM records
WHERE queue = 'default' AND state = 'queued' AND crashes = 0 AND published_until IS NULL"""


@dataclass(frozen=True)
class Run:
    rate: float
    p50: float
    p99: float
    answered: int
    behind: list[float]  # seconds that the relay was behind, once a second; the last as the load ended
    cpu: dict[str, float]  # microseconds a request, by who used them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--broker", choices=brokers.BROKERS, default="redis")
    parser.add_argument("--endpoint", choices=("async", "def"), default="async")
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help=f"default {CONNECTIONS}")
    parser.add_argument("--seconds", type=float, help="of load through Segundo (default 60; 3 with --quick)")
    parser.add_argument(
        "--beside", type=float, help="seconds of load on `.delay()` (default 15; 3 with --quick)"
    )


def run(options: argparse.Namespace, sides: Sides, directory: Path) -> Report:
    seconds = options.seconds or (3.0 if options.quick else 60.0)
    beside = options.beside or (3.0 if options.quick else 15.0)
    with (
        brokers.serving(brokers.make_broker(options.broker, directory)) as broker,
        brokers.serving(brokers.make_postgres(directory)) as postgres,
    ):
        bench = DelayBench(broker, postgres, directory, options.endpoint, options.connections)
        theirs = bench.measure("stock", beside)
        progress(f".delay(): {theirs.rate:,.0f} requests/s")
        ours = bench.measure("segundo", seconds)
        progress(f"Segundo: {ours.rate:,.0f} requests/s, {ours.behind[-1]:.1f} s behind")
        versions = brokers.about(options.broker, directory)
    return _report(options, (seconds, beside), ours, theirs, versions)


class DelayBench:
    def __init__(
        self, broker: Service, postgres: Service, directory: Path, endpoint: str, connections: int
    ) -> None:
        self._broker = broker
        self._postgres = postgres
        self._directory = directory
        self._endpoint = endpoint
        self._connections = connections

    def measure(self, side: str, seconds: float) -> Run:
        environ = brokers.environ(side, self._broker.url(), self._postgres.url())
        with (
            Server(side, self._directory / side, app="bench.celery_app:app", environ=environ) as app,
            self._sink(side) as took,
            self._lag(side) as behind,
        ):
            run = self._load(app, seconds, behind)
            if side == "segundo":
                self._wait_for_the_relay()
        expected = {"messages": run.answered, "settled": run.answered if side == "segundo" else 0}
        if took["messages"] < expected["messages"] or took["settled"] != expected["settled"]:
            raise BenchError(f"{run.answered} calls, and of them went out: {took}")
        return run

    def _load(self, app: Server, seconds: float, behind: list[float]) -> Run:
        who = {"app": app.cpu_seconds}
        for name, service in (("broker", self._broker), ("ledger", self._postgres)):
            who[name] = lambda pid=service.pid: machine.cpu_seconds_below(pid)
        used = {name: of() for name, of in who.items()}
        counted = app.load(f"/{self._endpoint}", seconds=seconds, warmup=1.0, connections=self._connections)
        if set(counted["statuses"]) != {"200"}:
            raise BenchError(f"answers {counted['statuses']}, not 200 alone")
        return Run(
            counted["rate"],
            counted["p50_ms"],
            counted["p99_ms"],
            counted["answered"],
            [*behind, self._behind() if app.side == "segundo" else 0.0],
            {name: 1e6 * (of() - used[name]) / counted["answered"] for name, of in who.items()},
        )

    def _behind(self) -> float:
        records = brokers.Records(self._postgres.url())
        try:
            return float(records.value(LAG))
        finally:
            records.close()

    def _wait_for_the_relay(self) -> None:
        records = brokers.Records(self._postgres.url())
        wait_until(lambda: records.count("finished_at IS NULL") == 0, 60, "every call went out", every=0.1)
        records.close()

    @contextmanager
    def _lag(self, side: str) -> Iterator[list[float]]:
        """Looked at once a second."""
        found: list[float] = []
        over = threading.Event()

        def look() -> None:
            while not over.wait(1.0):
                found.append(self._behind())

        looking = threading.Thread(target=look)
        if side == "segundo":
            looking.start()
        yield found
        over.set()
        if side == "segundo":
            looking.join()

    @contextmanager
    def _sink(self, side: str) -> Iterator[dict[str, int]]:
        ledger = ["--ledger", self._postgres.url()] if side == "segundo" else []
        command = [sys.executable, "-m", "bench.sink", "--broker", self._broker.url(), *ledger]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        took: dict[str, Any] = {}
        try:
            yield took
        finally:
            process.terminate()
            out, _ = process.communicate(timeout=30)
            took |= json.loads(out) if out else {}


def _report(
    options: argparse.Namespace, lengths: tuple[float, float], ours: Run, theirs: Run, versions: str
) -> Report:
    report = Report(
        "",
        f"{'An `async def`' if options.endpoint == 'async' else 'A `def`'} endpoint with one task for "
        f"Celery over {options.broker}{', publisher confirms on' if options.broker == 'rabbitmq' else ''}; "
        f"flat out, {options.connections} connections: {lengths[0]:g} s through Segundo (PostgreSQL ledger, "
        f"commits on disk, the relay in the same process), {lengths[1]:g} s by Celery's own `.delay()`. A "
        "process stands for workers elsewhere: it takes all messages from the broker, and claims and settles "
        "in the ledger, in bulk, every 50 ms; every call went out. All of it shares the machine; CPU is in "
        f"microseconds a request. This is one run of several. {versions}; "
        f"{machine.packages(machine.WITH_BROKER)}.",
    )
    rows = [
        [
            name, f"{run.rate:,.0f}", f"{run.p50:.1f}", f"{run.p99:.1f}",
            *(f"{run.cpu[who]:,.0f}" for who in ("app", "broker", "ledger")),
        ]
        for name, run in ((".delay()", theirs), ("Segundo", ours))
    ]  # fmt: skip
    columns = ["", "requests/s", "p50 ms", "p99 ms", "app us", "broker us", "ledger us"]
    report.table("", columns, rows)
    report.remark(f"The relay was at most {max(ours.behind):.2f} s behind.")
    report.targets += [
        Target("requests/s over those of `.delay()`", ours.rate / theirs.rate, LIMIT, True, "x"),
        Target("the relay behind as the load ended", ours.behind[-1], BEHIND, False, " s"),
    ]
    return report
