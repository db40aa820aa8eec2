"""`start`: one request at a time on an idle server; how long after the response does its task start?"""

from __future__ import annotations

import argparse
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench import machine
from bench.errors import BenchError
from bench.figures import estimate_of, percentile
from bench.report import Report, Target, progress
from bench.server import Server, wait_until
from bench.sides import Sides

REQUEST = b"GET /stamped HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
BODY = b'{"ok":true}'
PAUSE = 0.005  # s between two requests, so that each finds the server idle
P50_LIMIT = 2.0  # ms


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--samples", type=int, help="requests in a round (default 200; 50 with --quick)")
    parser.add_argument("--rounds", type=int, help="rounds for each contender (default 9; 2 with --quick)")


def run(options: argparse.Namespace, sides: Sides, directory: Path) -> Report:
    samples = options.samples or (50 if options.quick else 200)
    rounds = options.rounds or (2 if options.quick else 9)
    with ExitStack() as stack:
        stock, ours = (
            Timed(stack.enter_context(Server(side, directory / f"{index}")))
            for index, side in enumerate((sides.stock, sides.ours))
        )
        for number in range(rounds):
            machine.wait_for_quiet(options.patience)
            for contender in (stock, ours) if number % 2 else (ours, stock):
                contender.measure(samples)
            last, stocks = median(ours.waits[-1]), median(stock.waits[-1])
            progress(f"{number + 1}/{rounds}: {last:.2f} ms, {sides.name_of_stock} {stocks:.2f} ms")
    return _report(sides, stock, ours, samples, rounds)


class Timed:
    """One contender's server, and what its single client saw."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.asked = 0
        self.waits: list[list[float]] = []  # ms from the response to the task's start, by round
        self.from_request: list[list[float]] = []  # ms from the request to the task's start

    def measure(self, samples: int) -> None:
        moments = self._talk(samples)
        self.asked += samples
        wait_until(self._all_started, 10, f"all {self.asked} tasks have started ({self.server.side})")
        started = self.server.get("/started")[-samples:]
        self.waits.append([(start - got) / 1e6 for start, (_, got) in zip(started, moments, strict=True)])
        self.from_request.append(
            [(start - sent) / 1e6 for start, (sent, _) in zip(started, moments, strict=True)]
        )

    def _all_started(self) -> bool:
        return bool(self.server.get("/executed")["executed"] == self.asked)

    def _talk(self, samples: int) -> list[tuple[int, int]]:
        """When each request left and when its response was here. CLOCK_MONOTONIC is the whole machine's."""
        moments: list[tuple[int, int]] = []
        with socket.create_connection(("127.0.0.1", self.server.port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(samples):
                time.sleep(PAUSE)
                sent = time.monotonic_ns()
                connection.sendall(REQUEST)
                _read_answer(connection)
                moments.append((sent, time.monotonic_ns()))
        return moments


def _read_answer(connection: socket.socket) -> None:
    answer = b""
    while not answer.endswith(BODY):
        piece = connection.recv(65536)
        answer += piece
        if not piece or not answer.startswith(b"HTTP/1.1 200"):
            raise BenchError(f"not the expected answer: {answer[:300]!r}")


def _report(sides: Sides, stock: Timed, ours: Timed, samples: int, rounds: int) -> Report:
    report = Report(
        "start",
        f"One request at a time, {PAUSE * 1000:g} ms apart, on one idle process, SQLite FULL, an async task; "
        f"{rounds} rounds of {samples} requests, the contenders in alternating order. A wait below zero is a "
        "task that had started before its client had read the response.",
    )
    rows: list[list[str]] = []
    for name, contender in ((sides.name_of_stock, stock), (sides.name_of_ours, ours)):
        for title, blocks in (("response", contender.waits), ("request", contender.from_request)):
            values = [value for block in blocks for value in block]
            shares = (0.5, 0.9, 0.99, 1.0)
            rows.append(
                [f"{name}: {title} to start", *(f"{percentile(values, share):.2f}" for share in shares)]
            )
    report.table("", ["", "p50 ms", "p90 ms", "p99 ms", "max ms"], rows)
    if sides.control:
        apart = abs(median(map(median, ours.waits)) - median(map(median, stock.waits)))
        report.targets.append(Target("distance of the two p50s", apart, 0.1, False, " ms"))
    else:
        p50 = estimate_of(lambda block: percentile(block, 0.5), ours.waits)
        report.targets.append(Target("response to task start, p50", p50, P50_LIMIT, False, " ms"))
    return report
