"""`scale`: what a deployment can carry, simulated from service times that were measured on one machine.

Four stations in a row, each with servers of its own: the ledger's commits, the relay's batches, the broker,
the workers. A station takes what waits, up to its batch, and is busy for a fixed time and a time for each
record. Records pass by in slices of time; what a station has not done waits for the next. So it shows the
rate that the narrowest station lets through, and where records pile up when more come: what the plan in
docs/scale.md needs, and no more.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.report import Report, Target
from bench.sides import Sides

SLICE = 0.01  # seconds


@dataclass(frozen=True)
class Station:
    """`fixed` seconds for each turn, `each` for each record of it; at most `batch` records a turn."""

    name: str
    fixed: float
    each: float
    batch: int
    servers: int = 1

    @property
    def limit(self) -> float:
        """Records a second with full batches."""
        return self.servers * self.batch / (self.fixed + self.batch * self.each)


@dataclass(frozen=True)
class Flow:
    """What came out of a simulated minute."""

    rate: float  # records/s that left the last station
    waiting: Mapping[str, float]  # in front of each station at the end
    busy: Mapping[str, float]  # share of its time
    behind: float  # seconds that the whole way takes at the end


# The CPU of each part for one record, so `each` is what a core of its own would need; `fixed` is a commit
# with its sync, or a round trip. Rounded from runs of `python -m bench delay`, `worker` and `publish` on a
# machine whose 2 cores all parts shared; the broker is RabbitMQ, the slower. `fixed` is assumed.
STATIONS = (
    Station("ledger", fixed=0.0010, each=0.00045, batch=512),
    Station("relay", fixed=0.0030, each=0.00002, batch=500),
    Station("broker", fixed=0.0002, each=0.00008, batch=500),
    Station("workers", fixed=0.0, each=0.0022, batch=1),
)


def simulate(stations: Sequence[Station], rate: float, seconds: float = 60.0) -> Flow:
    """Let `rate` records a second come for so long."""
    waiting = [0.0] * len(stations)
    spent = [0.0] * len(stations)
    done = 0.0
    for _ in range(round(seconds / SLICE)):
        coming = rate * SLICE
        for place, station in enumerate(stations):
            waiting[place] += coming
            coming, used = _serve(station, waiting[place])
            waiting[place] -= coming
            spent[place] += used
        done += coming
    left = done / seconds
    return Flow(
        rate=left,
        waiting={station.name: count for station, count in zip(stations, waiting, strict=True)},
        busy={
            station.name: used / (seconds * station.servers)
            for station, used in zip(stations, spent, strict=True)
        },
        behind=sum(waiting) / left if left else float("inf"),
    )


def _serve(station: Station, waiting: float) -> tuple[float, float]:
    """How many of these it does in a slice, and the time that its servers spend."""
    time = SLICE * station.servers
    full_turn = station.fixed + station.batch * station.each
    most = time / full_turn * station.batch
    if waiting >= most:
        return most, time
    turns = max(waiting / station.batch, min(1.0, waiting))
    needed = turns * station.fixed + waiting * station.each
    if needed <= time:
        return waiting, needed
    return max(0.0, (time - turns * station.fixed) / station.each), time


def scaled(**servers: int) -> tuple[Station, ...]:
    """The stations, with so many servers of each."""
    return tuple(replace(station, servers=servers.get(station.name, 1)) for station in STATIONS)


DEPLOYMENTS = {
    "one of each": scaled(),
    "4 worker slots": scaled(workers=4),
    "8 ledger cores, 20 slots": scaled(ledger=8, workers=20),
    "8 ledger cores, 100 workers": scaled(ledger=8, workers=100),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=10_000.0, help="records a second that come")


def run(options: argparse.Namespace, sides: Sides, directory: Path) -> Report:
    report = Report(
        "",
        f"Simulated, not measured: {options.rate:,.0f} records/s come for a minute to the ledger's commits, "
        "the relay, the broker and the workers, whose service times bench/scale.py names, and says which of "
        "them are assumed. *Waits before* is where records pile up; docs/scale.md draws the plan from it.",
    )
    rows = []
    for name, stations in DEPLOYMENTS.items():
        flow = simulate(stations, options.rate)
        narrow = max(flow.waiting, key=lambda place: flow.waiting[place])
        limits = [f"{station.limit:,.0f}" for station in stations]
        rows.append(
            [name, f"{flow.rate:,.0f}", narrow if flow.waiting[narrow] > options.rate else "–", *limits]
        )
    columns = ["servers", "records/s", "waits before", *(f"{station.name} at most" for station in STATIONS)]
    report.table("", columns, rows)
    last = simulate(list(DEPLOYMENTS.values())[-1], options.rate)
    report.targets.append(Target("records/s of the largest", last.rate, 0.99 * options.rate, True, digits=0))
    return report
