"""A storm: the app under load, killed at random moments and started again, until all records have ended."""

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from tests.soak import processes
from tests.soak.clients import Clients
from tests.soak.evidence import Evidence
from tests.soak.history import Asked, History, Journal, Killed, Stalled, Vanished
from tests.soak.host import Host, send
from tests.soak.rows import damage, live_records, read_rows
from tests.soak.traffic import requests
from tests.soak.verdict import Verdict
from tests.support import ROOT, wait_until

RECORD_TIMEOUT = 0.5  # seconds until a request is refused; a stall is often longer

GRACE = 0.2  # seconds that what runs at a stop in good order has; slow calls take longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What a storm is made of. Times are seconds; one seed draws the same requests, kills and waits."""

    kills: int
    cuts: int = 0  # what the kills must cut off, of attempts: until then it kills on, thrice as often at most
    workers: int = 1  # of uvicorn
    beside: int = 0  # `segundo worker` processes that run records too
    seed: int = 0
    clients: int = 6
    rate: float = 12.0  # requests a second of each client
    answers: int = 1  # the clients receive these before the next kill is thought of,
    between: tuple[float, float] = (0.0, 2.0)  # which is then so far away
    # What a kill can cut off. Few, for records that crashed run one at a time, and must not pile up.
    slow: float = 0.05  # which part of the calls takes 0.05 to 0.5 seconds
    stalls: float = 0.3  # how likely, around a kill, a worker is frozen or a stranger holds the write lock
    frozen: float = 0.5  # how likely such a stall is a frozen worker
    stall: tuple[float, float] = (0.1, 2.5)
    deploys: float = 0.25  # how likely the app is stopped in good order and started again before a kill
    drain: float = 120.0  # what is left at the end may take this long
    broken: str | None = None  # the way in which the library is broken on purpose


def storm(weather: Weather, folder: Path) -> Verdict:
    """Run one storm in an empty folder, which then holds its history, its ledger and the server's log."""
    with Storm(weather, folder) as running:
        running.blow()
        running.settle()
    history, ledger = History.read(running.history), running.ledger
    return Verdict.of(history, read_rows(ledger), damage=damage(ledger))


class Storm:
    """The app and what befalls it, as a context manager that leaves no process behind."""

    def __init__(self, weather: Weather, folder: Path) -> None:
        self.history = folder / "history.jsonl"
        self.ledger = folder / "ledger.db"
        self._weather = weather
        self._chance = Random(f"{weather.seed}/weather")
        self._journal = Journal(self.history)
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._host = Host(
            folder,
            self._environment(),
            workers=weather.workers,
            beside=weather.beside,
            loop=self._chance.choice(("auto", "asyncio")),  # auto is uvloop, if it is installed
        )

    def _environment(self) -> dict[str, str]:
        return {
            "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT))),
            "SOAK_HISTORY": str(self.history),
            "SOAK_BROKEN": self._weather.broken or "",
            "SEGUNDO_LEDGER": str(self.ledger),
            "SEGUNDO_RECORD_TIMEOUT": str(RECORD_TIMEOUT),
            "SEGUNDO_GRACE": str(GRACE),
        }

    def __enter__(self) -> Self:
        self._host.start()
        self._watcher.start()
        # One connection for the whole storm: its close, as any last close, would checkpoint the file.
        self._stranger = sqlite3.connect(
            self.ledger, timeout=10, isolation_level=None, check_same_thread=False
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._watcher.join()
        self._host.stop()
        self._stranger.close()
        self._journal.close()

    def blow(self) -> None:
        """All kills, under load. The last takes every process, so that the end is a recovery too."""
        weather = self._weather
        streams = [
            requests(f"q{number}", Random(f"{weather.seed}/{number}"), slow=weather.slow)
            for number in range(weather.clients)
        ]
        with Clients(self._host.port, self._journal, streams, rate=weather.rate) as clients:
            for kill in range(1, 3 * weather.kills + 1):
                clients.wait_for_answers(weather.answers, timeout=60)
                if self._chance.random() < weather.deploys:
                    self._deploy()
                    clients.wait_for_answers(1, timeout=60)
                self._one_kill(last=kill >= weather.kills)
                if kill >= weather.kills and self._cut_off() >= weather.cuts:
                    break

    def settle(self) -> None:
        """Wait until no record is live, or until that took too long: the checker tells what is left."""
        with suppress(AssertionError):
            wait_until(lambda: live_records(self.ledger) == 0, timeout=self._weather.drain, every=0.1)

    def _cut_off(self) -> int:
        """How many attempts did not end, because their process died."""
        attempts = Evidence(History.read(self.history), ()).attempts.values()
        return sum(one.ended is None and one.death is not None for several in attempts for one in several)

    def _one_kill(self, *, last: bool) -> None:
        """Draw first, act then: what is drawn must not hang on what happens."""
        wait = self._chance.uniform(*self._weather.between)
        single = self._chance.random() < 0.7
        stalled, frozen = (
            self._chance.random() < odds for odds in (self._weather.stalls, self._weather.frozen)
        )
        seconds = self._chance.uniform(*self._weather.stall)
        with self._stall(frozen, seconds) if stalled else nullcontext():
            self._over.wait(wait)
            if self._weather.workers + self._weather.beside > 1 and single and not last:
                self._kill_one()
            else:
                self._kill_everything()

    def _deploy(self) -> None:
        """Stop the app in good order (SIGTERM) and start it again, as an upgrade does."""
        self._over.wait(self._chance.uniform(*self._weather.between))
        self._journal.append(Asked(groups=tuple(self._host.groups())))
        self._host.stop()
        self._host.start()

    def _kill_one(self) -> None:
        """`kill -9` one process, which its supervisor replaces, while the others go on."""
        process = self._chance.choice(wait_until(self._host.processes))
        self._journal.append(Killed(processes=(process,)))
        send(process, signal.SIGKILL)
        wait_until(lambda: not processes.alive(process))
        self._host.start()  # what has no supervisor

    def _kill_everything(self) -> None:
        """`kill -9` the whole group at once, and start it again."""
        self._journal.append(
            Killed(groups=tuple(self._host.groups()), processes=tuple(self._host.processes()))
        )
        self._host.kill()
        self._host.start()

    @contextmanager
    def _stall(self, frozen: bool, seconds: float) -> Iterator[None]:
        """Around a kill, for some seconds: a worker stands still, or a stranger holds the write lock."""
        target = self._freeze_a_worker if frozen else self._hold_the_lock
        thread = threading.Thread(target=target, args=(seconds,), daemon=True)
        thread.start()
        yield
        thread.join()

    def _freeze_a_worker(self, seconds: float) -> None:
        began = time.monotonic_ns()
        process = next(iter(wait_until(self._host.processes)))
        send(process, signal.SIGSTOP)
        self._over.wait(seconds)
        send(process, signal.SIGCONT)
        self._journal.append(Stalled(t=began, until=time.monotonic_ns()))

    def _hold_the_lock(self, seconds: float) -> None:
        began = time.monotonic_ns()
        self._stranger.execute("BEGIN IMMEDIATE")
        self._over.wait(seconds)
        self._stranger.execute("ROLLBACK")
        self._journal.append(Stalled(t=began, until=time.monotonic_ns()))

    def _watch(self) -> None:
        """Write down who died; of those that nobody killed the checker knows it only from here."""
        seen: dict[str, int] = {}
        while not self._over.wait(0.2):
            now = time.monotonic_ns()
            for process in [process for process in seen if not processes.alive(process)]:
                self._journal.append(Vanished(t=seen.pop(process), process=process))
            seen.update(dict.fromkeys(self._host.processes(), now))
