"""`worker`: no-op tasks a second on a Celery worker, through Segundo and bare, same pool and settings."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import brokers, machine
from bench.counting import ADDRESS, executed
from bench.errors import BenchError
from bench.figures import estimate
from bench.report import Report, Target, progress
from bench.server import Server, wait_until
from bench.sides import Sides
from scripts.services import Service
from segundo.executors.celery.apps import make_app

LIMIT = 0.5
POOLS = {"prefork": ["-c", "2"], "threads": ["-c", "8"], "solo": []}
WARMUP = 1.0
ENOUGH = 5_000  # tasks a second that wait for each second measured: more than any side runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--broker", choices=brokers.BROKERS, default="redis")
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=list(POOLS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="length of one run (default 5; 1 with --quick)")


@dataclass(frozen=True)
class Run:
    """What one side did while it was looked at."""

    rate: float  # tasks/s
    cpu: dict[str, float]  # microseconds a task, by who used them


def run(options: argparse.Namespace, sides: Sides, directory: Path) -> Report:
    seconds = options.seconds or (1.0 if options.quick else 5.0)
    found: dict[str, list[tuple[Run, Run]]] = {pool: [] for pool in options.pools}
    with (
        brokers.serving(brokers.make_broker(options.broker, directory)) as broker,
        brokers.serving(brokers.make_postgres(directory)) as postgres,
    ):
        bench = WorkerBench(broker, postgres, directory, seconds)
        for number in range(options.rounds):
            for pool in options.pools:
                flip = number % 2 == 1
                runs = {
                    side: bench.measure(side, pool) for side in (("segundo", "stock")[:: -1 if flip else 1])
                }
                found[pool].append((runs["segundo"], runs["stock"]))
                progress(f"{pool}: {runs['segundo'].rate:,.0f} of {runs['stock'].rate:,.0f} tasks/s")
        versions = brokers.about(options.broker, directory)
    return _report(options, seconds, found, versions)


class WorkerBench:
    def __init__(self, broker: Service, postgres: Service, directory: Path, seconds: float) -> None:
        self._broker = broker
        self._postgres = postgres
        self._directory = directory
        self._seconds = seconds
        self._number = 0

    def measure(self, side: str, pool: str) -> Run:
        self._number += 1
        directory = self._directory / f"{self._number}-{side}-{pool}"
        counts = directory / "counts"
        counts.mkdir(parents=True)
        enough = int(ENOUGH * (self._seconds + WARMUP))
        environ = brokers.environ(
            side,
            self._broker.url(),
            self._postgres.url(),
            BENCH_COUNTS=str(counts),
            SEGUNDO_WINDOW=str(2 * enough),
        )
        self._empty()
        waiting = self._queued if side == "segundo" else self._messages
        with (
            waiting(enough, directory, environ) as app,
            brokers.Worker(["--pool", pool, *POOLS[pool]], directory, environ) as worker,
        ):
            wait_until(lambda: worker.check() or executed(counts) > 0, 30, "a worker runs tasks")
            time.sleep(WARMUP)
            run = self._look(counts, worker, app)
            worker.check()
        return run

    def _look(self, counts: Path, worker: brokers.Worker, app: Server | None) -> Run:
        who = {"worker": worker.cpu_seconds}
        for name, service in (("broker", self._broker), ("ledger", self._postgres)):
            who[name] = lambda pid=service.pid: machine.cpu_seconds_below(pid)
        if app is not None:
            who["relay"] = app.cpu_seconds
        before, begun = executed(counts), time.monotonic()
        used = {name: of() for name, of in who.items()}
        time.sleep(self._seconds)
        done, took = executed(counts) - before, time.monotonic() - begun
        if done == 0:
            raise BenchError(f"the worker ran {before} tasks, then none for {took:.1f} s:\n{worker.said()}")
        cpu = {name: 1e6 * (of() - used[name]) / done for name, of in who.items()}
        return Run(done / took, cpu)

    @contextmanager
    def _queued(self, count: int, directory: Path, environ: dict[str, str]) -> Iterator[Server]:
        """Records in the ledger and, before the worker starts, a message about each in the broker."""
        with Server("segundo", directory, app="bench.celery_app:app", environ=environ) as app:
            app.get("/async")
            records = brokers.Records(self._postgres.url())
            records.copies(count)
            app.get("/async")  # it has not heard of the copies: with this one it relays them too
            wait_until(
                lambda: records.count("published_until IS NULL") == 0, 60, "all is in the broker", every=0.1
            )
            yield app
            records.clear()
            records.close()

    @contextmanager
    def _messages(self, count: int, directory: Path, environ: dict[str, str]) -> Iterator[None]:
        """Messages in the broker, as `.delay()` makes them."""
        celery = make_app(self._broker.url())
        noop = celery.signature("noop", args=(ADDRESS,))
        with (
            celery.connection_for_write() as connection,
            celery.amqp.Producer(connection.default_channel, auto_declare=False) as producer,
        ):
            for _ in range(count):
                noop.apply_async(producer=producer)
        yield None

    def _empty(self) -> None:
        """Leave nothing of the side before in the broker, in whichever of the ten lists of Redis."""
        celery = make_app(self._broker.url())
        with celery.connection_for_write() as connection:
            queue = celery.amqp.queues[brokers.QUEUE](connection.default_channel)
            queue.declare()
            queue.purge()


def _report(
    options: argparse.Namespace, seconds: float, found: dict[str, list[tuple[Run, Run]]], versions: str
) -> Report:
    report = Report(
        f"worker, {options.broker}",
        f"No-op `def` tasks on a Celery worker over {options.broker}, for {seconds:g} s: through Segundo, "
        "claimed and settled in a PostgreSQL ledger (commits on disk), and bare. All messages, more than it "
        "runs, are in the broker before it starts. The Celery settings of both are those that Segundo sets "
        "(`task_acks_late`, prefetch 1); of its own, only `SEGUNDO_WINDOW` is larger than usual. Ledger, "
        "broker, relay and worker share the machine; their CPU is in microseconds a task. In a solo worker "
        "over RabbitMQ Celery's loop is made to come round after each task, on both sides: bare it stalls. "
        f"{options.rounds} rounds; this is one run of several. {versions}; "
        f"{machine.packages(machine.WITH_BROKER)}.",
    )
    rows = []
    for pool, pairs in found.items():
        for name, index in (("Celery", 1), ("Segundo", 0)):
            runs = [pair[index] for pair in pairs]
            cpu = [
                f"{median(run.cpu.get(who, 0.0) for run in runs):,.0f}"
                for who in ("worker", "broker", "ledger", "relay")
            ]
            rows.append(
                [f"{pool} {' '.join(POOLS[pool])}", name, f"{median(r.rate for r in runs):,.0f}", *cpu]
            )
    columns = ["pool", "", "tasks/s", "worker us", "broker us", "ledger us", "relay us"]
    report.table("", columns, rows)
    report.targets += [
        Target(
            f"{pool}: tasks/s over bare Celery's",
            estimate([a.rate / b.rate for a, b in pairs]),
            LIMIT,
            True,
            "x",
        )
        for pool, pairs in found.items()
    ]
    return report
