"""The load generator: a process of its own, cheap enough that the server is what is measured.

`python -m bench.client --port 8000 --path /x --connections 32 --seconds 3` prints one JSON object.
Two kinds of load:

- flat out: each connection sends its next request when it has its answer (what limits it is the server);
- paced (`--rate`): requests fall due at fixed times whatever the server does, and a latency counts from the
  time that the request was due, so a stall of the server is seen by all the requests that it kept waiting.

At the end no request is cut off: those under way get their answers, so `answered` is all that was asked.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import selectors
import time
from abc import ABC, abstractmethod
from array import array
from collections import Counter, deque
from collections.abc import Callable
from typing import cast

from bench.figures import percentile

HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length: "
LAST_ANSWERS = 15.0  # seconds that requests under way may take once the load is over


class Load(ABC):
    """The common part of both loads: what was answered, how fast, and when it is over."""

    def __init__(self, request: bytes, warmup: float, seconds: float) -> None:
        self.request = request
        self.warmup = warmup
        self.seconds = seconds
        self.latencies = array("d")
        self.statuses: Counter[bytes] = Counter()
        self.bodies: Counter[bytes] = Counter()
        self.under_way = 0
        self.connections: list[Connection] = []
        self.finished = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        self.begun = time.perf_counter()
        self.counts_from = self.begun + self.warmup
        self.until = self.counts_from + self.seconds

    def send(self, connection: Connection, due: float) -> None:
        self.under_way += 1
        connection.due = due
        connection.transport.write(self.request)

    def answered(self, connection: Connection, status: bytes, body: bytes) -> None:
        now = time.perf_counter()
        self.under_way -= 1
        self.statuses[status] += 1
        self.bodies[body] += 1
        if self.counts_from <= now < self.until:
            self.latencies.append(now - connection.due)
        self.free(connection, now)
        self.finish_if_over(now)

    def finish_if_over(self, now: float) -> None:
        if self.all_sent(now) and not self.under_way and not self.finished.done():
            self.finished.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.finished.done():
            self.finished.set_exception(error)

    @abstractmethod
    def free(self, connection: Connection, now: float) -> None:
        """The connection has its answer: give it the next request, or keep it for one."""

    @abstractmethod
    def all_sent(self, now: float) -> bool:
        """Whether no further request is to be sent."""


class FlatOut(Load):
    def begin(self) -> None:
        super().begin()
        for connection in self.connections:
            self.send(connection, time.perf_counter())

    def free(self, connection: Connection, now: float) -> None:
        if now < self.until:
            self.send(connection, now)

    def all_sent(self, now: float) -> bool:
        return now >= self.until


class Paced(Load):
    """Requests at fixed times; one due while all connections are busy waits, and its wait is counted."""

    def __init__(self, request: bytes, warmup: float, seconds: float, rate: float) -> None:
        super().__init__(request, warmup, seconds)
        self.interval = 1 / rate
        self.idle: deque[Connection] = deque()
        self.overdue: deque[float] = deque()

    def begin(self) -> None:
        super().begin()
        self.idle.extend(self.connections)
        self.next_due = self.begun
        self.tick()

    def tick(self) -> None:
        now = time.perf_counter()
        while self.next_due <= now and self.next_due < self.until:
            if self.idle:
                self.send(self.idle.popleft(), self.next_due)
            else:
                self.overdue.append(self.next_due)
            self.next_due += self.interval
        if self.next_due < self.until:
            asyncio.get_running_loop().call_later(max(0.0, self.next_due - time.perf_counter()), self.tick)
        else:
            self.finish_if_over(now)

    def all_sent(self, now: float) -> bool:
        return self.next_due >= self.until and not self.overdue

    def free(self, connection: Connection, now: float) -> None:
        if self.overdue:
            self.send(connection, self.overdue.popleft())
        else:
            self.idle.append(connection)


class Connection(asyncio.Protocol):
    """One keep-alive connection. It reads just enough HTTP to know where an answer ends."""

    transport: asyncio.Transport

    def __init__(self, load: Load) -> None:
        self.load = load
        self.due = 0.0
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only

    def data_received(self, data: bytes) -> None:
        if self.received:
            data = self.received + data
        body_at = data.find(HEAD_END) + len(HEAD_END)
        if body_at < len(HEAD_END):
            self.received = data
            return
        length_at = data.find(LENGTH, 0, body_at)
        if length_at < 0:
            self.load.fail(ValueError(f"an answer without content-length: {data[:body_at]!r}"))
            return
        length_at += len(LENGTH)
        end = body_at + int(data[length_at : data.index(b"\r", length_at)])
        if len(data) < end:
            self.received = data
            return
        self.received = b""
        self.load.answered(self, data[9:12], data[body_at:end])

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.fail(ConnectionError("the server closed a connection under load"))


async def run(options: argparse.Namespace) -> dict[str, object]:
    request = (f"GET {options.path} HTTP/1.1\r\nhost: {options.host}:{options.port}\r\n\r\n").encode()
    load: Load
    if options.rate:
        load = Paced(request, options.warmup, options.seconds, options.rate)
    else:
        load = FlatOut(request, options.warmup, options.seconds)
    loop = asyncio.get_running_loop()
    for _ in range(options.connections):
        _, connection = await loop.create_connection(lambda: Connection(load), options.host, options.port)
        load.connections.append(connection)
    gc.collect()
    gc.disable()  # the generator's own pauses must not be taken for the server's
    used = time.process_time()
    load.begin()
    await asyncio.wait_for(load.finished, options.warmup + options.seconds + LAST_ANSWERS)
    used = time.process_time() - used
    then = await _get(options.host, options.port, options.then) if options.then else None
    return _summary(load, used, then)


def _summary(load: Load, used: float, then: object) -> dict[str, object]:
    milliseconds = sorted(1000 * latency for latency in load.latencies)
    return {
        "answered": load.statuses.total(),
        "counted": len(milliseconds),
        "seconds": load.seconds,
        "rate": len(milliseconds) / load.seconds,
        "statuses": {status.decode(): count for status, count in load.statuses.items()},
        "bodies": {body.decode(): count for body, count in load.bodies.most_common(16)},
        "p50_ms": percentile(milliseconds, 0.5) if milliseconds else None,
        "p99_ms": percentile(milliseconds, 0.99) if milliseconds else None,
        "max_ms": milliseconds[-1] if milliseconds else None,
        "client_cpu": used,
        "then": then,
    }


async def _get(host: str, port: int, path: str) -> object:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return json.loads(answer.partition(HEAD_END)[2])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.client", description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--warmup", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second; 0 means flat out")
    parser.add_argument("--then", help="a path to read the moment the load is over")
    options = parser.parse_args()
    print(json.dumps(asyncio.Runner(loop_factory=_loop_for(options)).run(run(options))))


def _loop_for(options: argparse.Namespace) -> Callable[[], asyncio.AbstractEventLoop]:
    if not options.rate:
        import uvloop

        return uvloop.new_event_loop
    # uvloop and epoll round waiting times to whole milliseconds, which would send paced requests in bunches.
    return lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())


if __name__ == "__main__":
    main()
