"""`request`: an endpoint that adds one no-op task, flat out and at half of stock's rate, beside stock."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import machine
from bench.errors import BenchError, Skipped
from bench.figures import estimate
from bench.records import all_succeeded
from bench.report import Report, Target, progress
from bench.server import Server, wait_until
from bench.sides import Sides
from bench.slow_disk import slow_disk

CONNECTIONS = 32
P99_ALLOWANCE = 5.0  # ms
CONTROL_RATIO, CONTROL_P99 = 0.05, 1.0  # how far apart, in ms for p99, two equal contenders may come out
ON_A_SLOW_DISK = 0.40


@dataclass(frozen=True)
class Kind:
    """A route of bench/apps.py and what is asked of it."""

    path: str
    name: str
    asked: float  # requests/s of Segundo over those of stock, at least
    tasks: int = 1  # that each request adds


KINDS = (
    Kind("async_async", "async endpoint + async task", 0.70),
    Kind("def_async", "def endpoint + async task", 0.80),
    Kind("def_def", "def endpoint + def task", 0.95),
    Kind("async_def", "async endpoint + def task", 1.30),
    Kind("plain", "route without tasks", 0.97, tasks=0),
)


@dataclass(frozen=True)
class Measured:
    """What one load on one server came to."""

    rate: float  # answers/s
    p50: float  # ms
    p99: float  # ms
    cpu: float  # us of the server's CPU for each request, its task included
    left: int  # tasks that had not run when the load stopped
    others: float  # share of one core that other processes took meanwhile


@dataclass(frozen=True)
class Pair:
    """Both contenders, measured in the same seconds."""

    ours: Measured
    stock: Measured


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, help="rounds of each kind (default 9; 2 with --quick)")
    parser.add_argument("--seconds", type=float, help="length of one load (default 3; 0.5 with --quick)")
    parser.add_argument("--kinds", nargs="+", choices=[kind.path for kind in KINDS], help="only these kinds")
    parser.add_argument(
        "--declared", action="store_true", help="the no-op is a declared @task, not a plain function"
    )
    parser.add_argument("--no-p99", action="store_true", help="leave out the loads at half of stock's rate")
    parser.add_argument(
        "--fsync-delay-us", type=int, default=0, help="make each fsync of the servers slower by this"
    )
    parser.add_argument("--client-cpu", type=int, help="pin the load generator to this core")


def run(options: argparse.Namespace, sides: Sides, directory: Path) -> Report:
    rounds = options.rounds or (2 if options.quick else 9)
    report = Report("request", _about(options, rounds))
    bench = RequestBench(options, sides, directory)
    kinds = [kind for kind in KINDS if kind.path in (options.kinds or _usual_kinds(options))]
    try:
        bench.environ |= (
            slow_disk(options.fsync_delay_us, directory / "disk") if options.fsync_delay_us else {}
        )
    except Skipped as reason:
        why = str(reason)
        report.targets += [Target(kind.name, None, ON_A_SLOW_DISK, True, "x", why_not=why) for kind in kinds]
        return report
    flat, paced = bench.measure(kinds, rounds)
    for title, pairs in (("Flat out:", flat), ("Paced at half of stock's top rate:", paced)):
        if pairs:
            report.table(title, COLUMNS, _rows(pairs, sides))
    if sides.control:
        report.targets += _control_targets(flat, paced)
    else:
        report.targets += _rate_targets(flat, options) + _p99_targets(paced)
    return report


def _usual_kinds(options: argparse.Namespace) -> list[str]:
    return ["async_async"] if options.fsync_delay_us else [kind.path for kind in KINDS]


def _about(options: argparse.Namespace, rounds: int) -> str:
    disk = f", each fsync made {options.fsync_delay_us} us slower" if options.fsync_delay_us else ""
    task = "declared with `@task`" if options.declared else "a plain function"
    return (
        f"One uvicorn process (uvloop, httptools), {CONNECTIONS} keep-alive connections, SQLite FULL{disk}; "
        f"the no-op is {task} that takes one string. {rounds} rounds with fresh servers and a fresh ledger, "
        "the contenders one after the other in alternating order. Every task that a request added has run by "
        "the end of its round, and Segundo's ledger says `succeeded` of each. Columns are medians of the "
        "rounds; *left to run* are the tasks that had not run when the load stopped."
    )


class RequestBench:
    def __init__(self, options: argparse.Namespace, sides: Sides, directory: Path) -> None:
        self.options = options
        self.sides = sides
        self.directory = directory
        self.seconds = options.seconds or (0.5 if options.quick else 3.0)
        self.warmup = 0.3 if options.quick else 1.0
        self.environ = {"BENCH_DECLARED": "1"} if options.declared else {}

    def measure(self, kinds: Sequence[Kind], rounds: int) -> tuple[Pairs, Pairs]:
        flat: Pairs = defaultdict(list)
        paced: Pairs = defaultdict(list)
        for number in range(rounds):
            for kind in kinds:
                machine.wait_for_quiet(self.options.patience)
                at_top, at_half = self._round(kind, number)
                flat[kind].append(at_top)
                if at_half:
                    paced[kind].append(at_half)
                progress(f"{number + 1}/{rounds} {kind.name}: {at_top.ours.rate / at_top.stock.rate:.2f}x")
        return flat, paced

    def _round(self, kind: Kind, number: int) -> tuple[Pair, Pair | None]:
        """Fresh servers; flat out one after the other, then paced one after the other."""
        with ExitStack() as stack:
            ours, stock = (
                stack.enter_context(
                    Server(side, self.directory / f"{kind.path}-{number}-{index}", environ=self.environ)
                )
                for index, side in enumerate((self.sides.ours, self.sides.stock))
            )
            watched = Watched(ours, kind), Watched(stock, kind)
            flip = number % 2 == 1
            at_top = self._pair(watched, flip, rate=0.0)
            at_half = None
            if kind.tasks and not self.options.no_p99 and not self.options.fsync_delay_us:
                at_half = self._pair(watched, not flip, rate=at_top.stock.rate / 2)
        for server in watched:
            server.check_ledger()
        return at_top, at_half

    def _pair(self, servers: tuple[Watched, Watched], flip: bool, rate: float) -> Pair:
        ours, stock = servers
        order = (stock, ours) if flip else (ours, stock)
        measured = {
            id(server): server.load(
                seconds=self.seconds, warmup=self.warmup, rate=rate, cpu=self.options.client_cpu
            )
            for server in order
        }
        return Pair(measured[id(ours)], measured[id(stock)])


class Watched:
    """A server whose every task is accounted for."""

    def __init__(self, server: Server, kind: Kind) -> None:
        self.server = server
        self.kind = kind
        self.expected = 0

    def load(self, *, seconds: float, warmup: float, rate: float, cpu: int | None) -> Measured:
        busy, used = machine.busy_seconds(), self.server.cpu_seconds()
        counted = self.server.load(
            f"/{self.kind.path}", seconds=seconds, warmup=warmup, rate=rate, connections=CONNECTIONS, cpu=cpu
        )
        self.expected += self.kind.tasks * counted["answered"]
        left = self.expected - counted["then"]["executed"]
        wait_until(
            self._all_ran, 60, f"all {self.expected} tasks of {self.kind.name} have run ({self.server.side})"
        )
        busy, used = machine.busy_seconds() - busy, self.server.cpu_seconds() - used
        if set(counted["statuses"]) != {"200"}:
            raise BenchError(
                f"{self.kind.name}, {self.server.side}: answers {counted['statuses']}, not 200 alone"
            )
        return Measured(
            rate=counted["rate"],
            p50=counted["p50_ms"],
            p99=counted["p99_ms"],
            cpu=1e6 * used / counted["answered"],
            left=left,
            others=max(0.0, busy - used - counted["client_cpu"]) / (warmup + seconds),
        )

    def _all_ran(self) -> bool:
        executed = self.server.get("/executed")["executed"]
        if executed > self.expected:
            raise BenchError(f"{executed} tasks ran, {self.expected} were added ({self.server.side})")
        return bool(executed == self.expected)

    def check_ledger(self) -> None:
        if self.server.side == "segundo":
            all_succeeded(self.server.ledger, self.expected)


Pairs = dict[Kind, list[Pair]]
COLUMNS = [
    "kind",
    "contender",
    "requests/s",
    "ratio",
    "p50 ms",
    "p99 ms",
    "CPU us/request",
    "left to run",
    "others' CPU",
]


def _rows(pairs: Pairs, sides: Sides) -> Iterable[list[str]]:
    for kind, measured in pairs.items():
        contenders: list[tuple[str, Callable[[Pair], Measured]]] = [
            (sides.name_of_stock, lambda pair: pair.stock),
            (sides.name_of_ours, lambda pair: pair.ours),
        ]
        for name, of in contenders:
            loads = [of(pair) for pair in measured]
            ratio = median(of(pair).rate / pair.stock.rate for pair in measured)
            yield [
                kind.name, name, f"{median(m.rate for m in loads):,.0f}", f"{ratio:.2f}",
                f"{median(m.p50 for m in loads):.2f}", f"{median(m.p99 for m in loads):.2f}",
                f"{median(m.cpu for m in loads):.0f}", f"{median(m.left for m in loads):,.0f}",
                f"{median(m.others for m in loads):.0%}",
            ]  # fmt: skip


def _rate_targets(flat: Pairs, options: argparse.Namespace) -> list[Target]:
    return [
        Target(
            f"{kind.name}: requests/s over stock's",
            estimate([pair.ours.rate / pair.stock.rate for pair in pairs]),
            ON_A_SLOW_DISK if options.fsync_delay_us else kind.asked,
            at_least=True,
            unit="x",
        )
        for kind, pairs in flat.items()
    ]


def _p99_targets(paced: Pairs) -> list[Target]:
    return [
        Target(
            f"{kind.name}: p99 less stock's p99, at half of stock's top rate",
            estimate([pair.ours.p99 - pair.stock.p99 for pair in pairs]),
            P99_ALLOWANCE,
            at_least=False,
            unit=" ms",
        )
        for kind, pairs in paced.items()
    ]


def _control_targets(flat: Pairs, paced: Pairs) -> list[Target]:
    """The same figures of two equal contenders: what is left is the harness's own error."""
    rates = [
        Target(
            f"{kind.name}: median ratio's distance from 1",
            abs(estimate(ratios).median - 1),
            CONTROL_RATIO,
            False,
        )
        for kind, pairs in flat.items()
        for ratios in [[pair.ours.rate / pair.stock.rate for pair in pairs]]
    ]
    p99s = [
        Target(
            f"{kind.name}: p99s' median distance", abs(estimate(apart).median), CONTROL_P99, False, unit=" ms"
        )
        for kind, pairs in paced.items()
        for apart in [[pair.ours.p99 - pair.stock.p99 for pair in pairs]]
    ]
    return rates + p99s
