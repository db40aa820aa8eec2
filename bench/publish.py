"""`publish`: messages a second that one thread sends to a broker, as the relay does and by `.delay()`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import brokers, machine
from bench.report import Report, progress
from bench.sides import Sides
from scripts.services import Service
from segundo.executors.celery.apps import make_app
from segundo.executors.celery.publisher import Publisher
from segundo.record import Record

BATCHES = (500, 30)  # the relay's largest, and one of a moderate load
PATIENCE = 5.0  # seconds


@dataclass(frozen=True)
class Run:
    rate: float
    cpu: float  # microseconds a message, of the thread that sends
    broker: float  # and of the broker


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--broker", choices=brokers.BROKERS, default="redis")
    parser.add_argument("--seconds", type=float, help="of each (default 5; 1 with --quick)")


def run(options: argparse.Namespace, sides: Sides, directory: Path) -> Report:
    seconds = options.seconds or (1.0 if options.quick else 5.0)
    found: dict[str, Run] = {}
    with brokers.serving(brokers.make_broker(options.broker, directory)) as broker:
        for size in BATCHES:
            found[f"the relay, {size} a batch"] = _relay(broker, size, seconds)
        found[".delay()"] = _delay(broker, seconds)
    return _report(options, seconds, found, brokers.about(options.broker, directory))


def _relay(broker: Service, size: int, seconds: float) -> Run:
    app = make_app(broker.url())
    publisher = Publisher(app, patience=PATIENCE, full=10**9)
    records = _records(size)

    def send() -> int:
        publisher.send(records)
        return size

    try:
        return _measure(broker, send, seconds)
    finally:
        publisher.close()
        _empty(app)


def _records(count: int) -> Sequence[Record]:
    """With no more than what a message says."""
    blank: dict[str, Any] = dict.fromkeys(Record._fields)
    said = {"task": "bench.celery_app:noop", "queue": brokers.QUEUE, "priority": 4}
    return [Record(**blank | said | {"id": f"{number:036x}"}) for number in range(count)]


def _delay(broker: Service, seconds: float) -> Run:
    app = make_app(broker.url())
    if app.conf.broker_url.startswith("amqp"):
        app.conf.broker_transport_options = {"confirm_publish": True}

    def noop(email: str) -> None:
        """Nobody runs it."""

    task = app.task(noop, name="noop")

    def send() -> int:
        task.delay("someone@example.com")
        return 1

    try:
        return _measure(broker, send, seconds)
    finally:
        app.close()


def _measure(broker: Service, send: Callable[[], int], seconds: float) -> Run:
    send()  # connects
    begun, cpu, used = time.monotonic(), time.thread_time(), machine.cpu_seconds_below(broker.pid or 0)
    sent = 0
    while time.monotonic() < begun + seconds:
        sent += send()
    took, cpu = time.monotonic() - begun, time.thread_time() - cpu
    used = machine.cpu_seconds_below(broker.pid or 0) - used
    progress(f"{sent / took:,.0f} messages/s")
    return Run(sent / took, 1e6 * cpu / sent, 1e6 * used / sent)


def _empty(app: Any) -> None:
    with app.connection_for_read() as connection:
        connection.default_channel.queue_purge(brokers.QUEUE)


def _report(options: argparse.Namespace, seconds: float, found: dict[str, Run], versions: str) -> Report:
    report = Report(
        "",
        f"Messages to {options.broker}"
        f"{', each confirmed' if options.broker == 'rabbitmq' else ''}, sent by one thread for {seconds:g} "
        "s: by the relay's publisher, which the ledger would have given the records, and by Celery's own "
        "`.delay()`. Nobody takes them out. CPU is in microseconds a message, of the thread and of the "
        f"broker. This is one run of several. {versions}; {machine.packages(machine.WITH_BROKER)}.",
    )
    rows = [[name, f"{run.rate:,.0f}", f"{run.cpu:.1f}", f"{run.broker:.1f}"] for name, run in found.items()]
    report.table("", ["", "messages/s", "thread us", "broker us"], rows)
    return report
