"""A storm: the app under load while its workers, its broker, its ledger and their links are struck."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.rows import dict_row

from tests.celery.stage import CeleryWorker
from tests.chaos.clients import Clients
from tests.chaos.follower import Follower
from tests.chaos.hosts import Network
from tests.chaos.servers import BROKERS, Postgres
from tests.chaos.traffic import Mix, RequestPlan, requests
from tests.soak import processes
from tests.soak.history import Journal, Struck, Vanished
from tests.soak.rows import Row
from tests.support import ROOT, Server, wait_until

APP = "tests.chaos.app:app"
QUEUES = ("default", "side")
POOLS = {  # of each host with workers
    "left": ("--pool", "prefork", "-c", "4"),
    "right": ("--pool", "threads", "-c", "8"),
}
STOP = "stop without a broker"
LIVE = "SELECT count(*) FROM segundo.records WHERE finished_at IS NULL"
BLOWS = (
    "kill a worker",
    "kill a pool's process",
    "freeze a worker",
    "cut off a worker",
    "kill the broker",
    "freeze the broker",
    "cut off the broker",
    "restart the ledger",
    "kill the ledger",
    "echo",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What a storm is made of. Times are seconds; one seed draws the same requests, blows and waits."""

    broker: str
    tasks: int  # calls that are sent at least
    blows: tuple[str, ...] = BLOWS  # each until it has hit
    rounds: int = 1  # … so often
    seed: int = 0
    clients: int = 8
    rate: float = 10.0  # requests a second of each client,
    crowd: int = 400  # who waits while so many records are live
    between: tuple[float, float] = (0.0, 1.0)  # from one blow to the next
    lease: float = 6.0
    visibility: float = 1.0  # until Redis delivers again what is not acknowledged
    limit: float = 120.0  # no more blows after that
    drain: float = 240.0  # what is left at the end may take this long
    broken: str | None = None  # the way in which the library is broken on purpose
    mix: Mix = field(default_factory=Mix)


class Storm:
    """The hosts and all that runs on them, as a context manager that leaves nothing behind."""

    def __init__(self, weather: Weather, folder: Path) -> None:
        self.weather = weather
        self.history = folder / "history.jsonl"
        self.journal = Journal(self.history)
        self.chance = Random(f"{weather.seed}/blows")
        self.network = Network("home", "post", *POOLS)
        self.over = Event()
        self.unasked = 0  # workers that ended by themselves
        self._starting: dict[str, Thread] = {}
        self.live = 0  # records, when they were last counted
        self.began = time.monotonic()
        self._folder = folder
        self._data = Path(tempfile.mkdtemp(prefix="segundo-chaos-"))
        self._data.chmod(0o755)  # PostgreSQL is another user than root

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self._data, ignore_errors=True)
            stack.enter_context(self.network)
            self.ledger = Postgres(self.network["home"], self._data / "postgres")
            self.broker = BROKERS[self.weather.broker](self.network["post"], self._data / "broker")
            for server in (self.ledger, self.broker):
                stack.callback(server.remove)
                server.start()
            self.follower = Follower(self.history)
            stack.callback(self.follower.close)
            self._start_the_app(stack)
            stack.callback(self.over.set)
            self._watcher = Thread(target=self._watch, daemon=True)
            with self.network["home"].inside():
                self._watcher.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._watcher.join()
        self._stack.close()
        self.journal.close()

    def _start_the_app(self, stack: ExitStack) -> None:
        env = self._environment()
        quiet = ("--no-access-log", "--log-level", "warning")
        self.server = Server(APP, cwd=self._folder, env=env, options=quiet)
        stack.callback(self._stop, self.server)
        with self.network["home"].inside():
            self.server.start(timeout=60)
        self.workers = {
            name: CeleryWorker(*pool, "-n", f"{name}@%h", target="segundo.celery", queues=QUEUES, env=env)
            for name, pool in POOLS.items()
        }
        for name in self.workers:
            stack.callback(self._kill, name)
            self.start_worker(name)
        for name in self.workers:
            self.ready(name)

    def _environment(self) -> dict[str, str]:
        weather = self.weather
        redis = {"CHAOS_VISIBILITY": str(weather.visibility)} if weather.broker == "redis" else {}
        return {
            "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT))),
            "CHAOS_HISTORY": str(self.history),
            "CHAOS_BROKEN": weather.broken or "",
            "CHAOS_LEASE": str(weather.lease),
            "SEGUNDO_APP": APP,
            "SEGUNDO_LEDGER": self.ledger.url(),
            "SEGUNDO_BROKER": self.broker.url(),
            "SEGUNDO_RECORD_TIMEOUT": "2",
            "SEGUNDO_GRACE": "2",
            **redis,
        }

    def start_worker(self, name: str) -> None:
        """Begin to: it takes a while."""
        self._starting[name] = starting = Thread(target=self.workers[name].start, daemon=True)
        with self.network[name].inside():  # a thread is where it was begun
            starting.start()

    def ready(self, name: str) -> None:
        """Wait until a worker that was started is there."""
        self._starting[name].join()

    def revive(self) -> None:
        """Start the workers again that ended by themselves, as whoever supervises them would."""
        for name, worker in self.workers.items():
            self.ready(name)
            if not worker.runs:
                self.unasked += 1
                self.start_worker(name)
                self.ready(name)

    def _stop(self, server: Server) -> None:
        server.stop()

    def _kill(self, name: str) -> None:
        self.ready(name)
        self.workers[name].kill()

    def group(self, name: str) -> list[str]:
        """The processes of a worker that run records."""
        group = self.workers[name].pid
        born = self.follower.look().born
        return [process for process, of in born.items() if of == group and processes.alive(process)]

    # Its course

    def clients(self) -> Clients:
        weather = self.weather
        streams = [
            self._paced(requests(f"q{number}", Random(f"{weather.seed}/{number}"), weather.mix))
            for number in range(weather.clients)
        ]
        host = self.network["home"]
        self.began = time.monotonic()  # what was started before that does not count
        return Clients(self.server.port, self.journal, streams, rate=weather.rate, host=host)

    def _paced(self, stream: Iterator[RequestPlan]) -> Iterator[RequestPlan]:
        for plan in stream:
            if self.live > self.weather.crowd:
                self.over.wait(1.0)
            yield plan

    @property
    def late(self) -> bool:
        return time.monotonic() - self.began > self.weather.limit

    def send_the_rest(self, clients: Clients) -> None:
        wait_until(lambda: clients.calls >= self.weather.tasks, timeout=1200, every=0.1)

    def settle(self) -> None:
        """Wait until no record is live, or until that took too long: the checker tells what is left."""
        self.revive()
        with suppress(AssertionError):
            wait_until(lambda: self._count() == 0, timeout=self.weather.drain, every=0.2)

    def stop_without_a_broker(self) -> None:
        """The app is asked to stop while its broker answers nothing: it must not wait for that."""
        began = time.monotonic_ns()
        self.network.cut("post")
        by_itself = self.server.stop() != -signal.SIGKILL
        self.journal.append(Struck(t=began, blow=STOP, hit=by_itself, until=time.monotonic_ns()))

    def _count(self) -> int:
        return int(self.ask(LIVE)[0]["count"])

    def rows(self) -> list[Row]:
        clocks = time.monotonic_ns() - time.time_ns()
        return [Row.of(row, clocks) for row in self.ask("SELECT * FROM segundo.records ORDER BY id")]

    def ask(self, query: Any) -> list[dict[str, Any]]:
        """What the ledger's server says, past the library."""
        with (
            self.network["home"].inside(),
            psycopg.connect(self.ledger.url(), connect_timeout=5, row_factory=dict_row) as connection,
        ):
            return connection.execute(query).fetchall()

    def _watch(self) -> None:
        """Write down who died; of those that nobody killed the checker knows it only from here."""
        seen: dict[str, int] = {}
        dead: set[str] = set()
        while not self.over.wait(0.2):
            now = time.monotonic_ns()
            for process in self.follower.look().born:
                if processes.alive(process):
                    seen[process] = now
                elif process not in dead:
                    dead.add(process)
                    self.journal.append(Vanished(t=seen.get(process, now), process=process))
            with suppress(psycopg.Error):
                self.live = self._count()


def send(process: str, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(processes.pid_of(process), number)
