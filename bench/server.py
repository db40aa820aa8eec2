"""One uvicorn process (or `workers`) that serves bench/apps.py for one contender, and its end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import machine
from bench.errors import BenchError
from scripts.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
STARTS_WITHIN = 30.0
STOPS_WITHIN = 60.0


def wait_until(predicate: Callable[[], bool], timeout: float, what: str, every: float = 0.01) -> None:
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > deadline:
            raise BenchError(f"waited {timeout:g} s in vain until {what}")
        time.sleep(every)


class Server:
    """A context manager: inside, the process is ready; after it, it has ended without complaint."""

    def __init__(
        self,
        side: str,
        directory: Path,
        *,
        app: str = "bench.apps:app",
        workers: int = 1,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.app = app
        self.side = side
        self.directory = directory
        self.workers = workers
        self.port = free_port()
        self.ledger = directory / "ledger.db"
        self.log = directory / "server.log"
        self.environ = {
            **os.environ,
            "BENCH_SIDE": side,
            "SEGUNDO_LEDGER": str(self.ledger),
            "PYTHONPATH": str(ROOT),
            **(environ or {}),
        }

    def __enter__(self) -> Server:
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command(), cwd=self.directory, env=self.environ, stdout=log, stderr=log
            )
        try:
            wait_until(self._ready, STARTS_WITHIN, f"the {self.side} server answers")
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            self._kill()
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            self._kill()
            raise BenchError(
                f"the {self.side} server did not stop within {STOPS_WITHIN:g} s{self._said()}"
            ) from None
        complaints = self.complaints()
        if complaints:
            raise BenchError(f"the {self.side} server complained:\n{complaints}")

    def _command(self) -> list[str]:
        options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", str(self.workers)]
        return [sys.executable, "-m", "uvicorn", self.app, *options, *where]

    def _ready(self) -> bool:
        if self.process.poll() is not None:
            raise BenchError(f"the {self.side} server ended with {self.process.returncode}{self._said()}")
        try:
            return self.get("/executed") is not None
        except OSError:
            return False

    def _kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _said(self) -> str:
        return ":\n" + self.log.read_text(errors="replace")[-3000:]

    def complaints(self) -> str:
        """The log's errors and tracebacks; a warning or a start-up line is none."""
        text = self.log.read_text(errors="replace")
        return text[-3000:] if "ERROR" in text or "Traceback" in text or "CRITICAL" in text else ""

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu_seconds(self) -> float:
        return machine.cpu_seconds(self.pid)

    def get(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status >= 400:
                raise BenchError(f"GET {path} of the {self.side} server: {answer.status} {body[:300]!r}")
            return json.loads(body)
        finally:
            connection.close()

    def load(
        self,
        path: str,
        *,
        seconds: float,
        warmup: float = 0.0,
        rate: float = 0.0,
        connections: int = 32,
        cpu: int | None = None,
    ) -> dict[str, Any]:
        """Run the load generator against this server and give what it counted."""
        options = {
            "port": self.port, "path": path, "connections": connections, "warmup": warmup, "seconds": seconds,
            "rate": rate, "then": "/executed",
        }  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, "-m", "bench.client", *words]
        if cpu is not None:
            command = ["taskset", "-c", str(cpu), *command]
        ended = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=warmup + seconds + 60
        )
        if ended.returncode:
            raise BenchError(
                f"the load generator failed against {self.side}:\n{ended.stderr[-2000:]}{self._said()}"
            )
        counted: dict[str, Any] = json.loads(ended.stdout)
        return counted
