"""`broker-down`: requests with a task for Celery while the broker refuses, or its link drops packets."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import brokers, machine
from bench.errors import BenchError
from bench.far import Link, far_broker, link
from bench.figures import estimate, percentile
from bench.report import Report, Target, progress
from bench.server import Server, wait_until
from bench.sides import Sides
from scripts.ports import free_port
from scripts.services import Service

SHARE, ALLOWANCE, WITHIN = 0.9, 5.0, 20.0  # of normal's rate; ms; seconds
CONNECTIONS = 32
PAUSE = 2.0  # seconds after a change of the broker, until it is measured
STATES = ("normal", "refusing", "dropping packets")
PUBLISHED = "state = 'queued' AND published_until IS NULL AND owner IS NULL"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--broker", choices=brokers.BROKERS, default="redis")
    parser.add_argument("--rounds", type=int, help="rounds of all three (default 3; 1 with --quick)")
    parser.add_argument("--seconds", type=float, help="length of one load (default 3; 1 with --quick)")


@dataclass(frozen=True)
class Run:
    rate: float
    p99: float
    lags: list[float]  # ms

    @property
    def late(self) -> float:
        return percentile(self.lags, 0.999)


class Broker:
    """A broker that is put into one state after the other."""

    def __init__(self, service: Service, link: Link) -> None:
        self._service = service
        self._link = link
        self.state = "normal"

    def become(self, state: str) -> None:
        if state == self.state:
            return
        if self.state == "refusing":
            self._service.start()
        if self.state == "dropping packets":
            self._link.heal()
        if state == "refusing":
            self._service.stop()
        if state == "dropping packets":
            self._link.cut()
        self.state = state


def run(options: argparse.Namespace, sides: Sides, directory: Path) -> Report:
    rounds = options.rounds or (1 if options.quick else 3)
    seconds = options.seconds or (1.0 if options.quick else 3.0)
    found: dict[str, list[Run]] = {state: [] for state in STATES}
    delivered: dict[str, list[float]] = {state: [] for state in STATES[1:]}
    with link() as made:
        service = far_broker(options.broker, directory, free_port(), made)
        with brokers.serving(service), brokers.serving(brokers.make_postgres(directory)) as postgres:
            environ = brokers.environ("segundo", service.url(), postgres.url(), BENCH_WATCH_LOOP="1")
            broker = Broker(service, made)
            with Server("segundo", directory / "app", app="bench.celery_app:app", environ=environ) as app:
                records = brokers.Records(postgres.url())
                app.get("/async")
                for number in range(rounds):
                    for state in STATES if number % 2 == 0 else STATES[::-1]:
                        broker.become(state)
                        time.sleep(PAUSE)
                        found[state].append(_load(app, seconds))
                        if state != "normal":
                            delivered[state].append(_delivery(broker, records))
                        progress(f"{state}: {found[state][-1].rate:,.0f} requests/s")
                        records.clear()
                records.close()
    return _report(options, (rounds, seconds), found, delivered, brokers.about(options.broker, directory))


def _load(app: Server, seconds: float) -> Run:
    app.get("/lags")
    counted = app.load("/async", seconds=seconds, warmup=0.5, connections=CONNECTIONS)
    if set(counted["statuses"]) != {"200"}:
        raise BenchError(f"answers {counted['statuses']}, not 200 alone")
    return Run(counted["rate"], counted["p99_ms"], [1000 * late for _, late in app.get("/lags")])


def _delivery(broker: Broker, records: brokers.Records) -> float:
    """Bring the broker back; seconds until nothing that fits into it is without a message."""
    # No worker takes part, so no more than the window goes out; the rest is let go.
    records.keep(900, PUBLISHED)
    broker.become("normal")
    begun = time.monotonic()
    wait_until(lambda: records.count(PUBLISHED) == 0, 60, "every call went out", every=0.05)
    return time.monotonic() - begun


def _report(
    options: argparse.Namespace,
    how: tuple[int, float],
    found: dict[str, list[Run]],
    delivered: dict[str, list[float]],
    versions: str,
) -> Report:
    report = Report(
        "",
        f"One uvicorn process, an `async def` endpoint with one task for Celery over {options.broker}, flat "
        f"out, {CONNECTIONS} connections; PostgreSQL ledger. The broker is as ever, then stopped (it refuses "
        f"connections), then behind a link that drops every packet. {how[0]} rounds, {how[1]:g} s each. The "
        "lag is how much too late a 1 ms sleep on the server's event loop ends. *Delivered* is the time from "
        "the broker's return until 900 calls have a message each. This is one run of several. "
        f"{versions}; {machine.packages(machine.WITH_BROKER)}.",
    )
    rows = [
        [
            state, f"{median(run.rate for run in runs):,.0f}", f"{median(run.p99 for run in runs):.1f}",
            f"{median(run.late for run in runs):.2f}",
            f"{max(delivered[state]):.1f}" if state in delivered else "",
        ]
        for state, runs in found.items()
    ]  # fmt: skip
    report.table("", ["broker", "requests/s", "p99 ms", "loop's lag p99.9 ms", "delivered s"], rows)
    for state in STATES[1:]:
        pairs = list(zip(found[state], found["normal"], strict=True))
        report.targets += [
            Target(f"{state}: requests/s over normal's", estimate([a.rate / b.rate for a, b in pairs]),
                   SHARE, True, "x"),
            Target(f"{state}: lag p99.9 less normal's", estimate([a.late - b.late for a, b in pairs]),
                   ALLOWANCE, False, " ms"),
            Target(f"{state}: delivered after its return", max(delivered[state]), WITHIN, False, " s", 1),
        ]  # fmt: skip
    return report
