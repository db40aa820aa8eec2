"""Real brokers, servers and Celery workers, and what their processes said and stored."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pytest

from scripts.services import RabbitMQ, Redis, Service
from tests.support import Server, free_port, ledger_rows, living, wait_until

QUEUES = ("default", "emails")


@contextmanager
def a_broker(kind: type[RabbitMQ] | type[Redis]) -> Iterator[Service]:
    """A broker of its own, on a free port and in a folder that goes with it."""
    if kind.program() is None:
        pytest.skip(f"{kind.name} is not installed: `make services`")
    folder = Path(tempfile.mkdtemp(prefix="segundo-test-"))
    service = kind(folder / "server", free_port())
    try:
        yield service.start()
    finally:
        service.remove()
        shutil.rmtree(folder)


class CeleryWorker:
    """`celery -A main:celery worker` in a process group of its own. A context manager.

    `cwd`: where it works, and has its log; by default the working directory.
    """

    def __init__(
        self,
        *options: str,
        target: str = "main:celery",
        queues: Sequence[str] = QUEUES,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._cwd = cwd
        self._command = [
            *(sys.executable, "-m", "celery", "-A", target, "worker", "-Q", ",".join(queues)),
            *("--loglevel", "INFO", "--without-gossip", "--without-mingle", *options),
        ]
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        self.log = Path(cwd or "", f"celery-{id(self)}.log")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        seen = self.output().count(" ready.")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: self._ready(seen), timeout=60)

    def _ready(self, seen: int) -> bool:
        assert self._process.poll() is None, f"the worker ended while starting:\n{self.output()}"
        return self.output().count(" ready.") > seen

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def kill(self) -> None:
        """`kill -9` every process of it at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        wait_until(lambda: not living(self.pid))

    def terminate(self) -> None:
        """Ask for Celery's warm shutdown (SIGTERM), and do not wait."""
        self._process.terminate()

    def wait(self, timeout: float = 30) -> int:
        """Wait until it has ended, and return its exit code."""
        return self._process.wait(timeout)

    def stop(self, timeout: float = 20) -> int:
        """Celery's warm shutdown; by force if it takes longer."""
        if self._process.poll() is None:
            self.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()
        return self._process.returncode


class Stage:
    """An app beside a broker: requests to it, the records of its ledger, the events of its processes."""

    def __init__(self, broker: Service) -> None:
        self.broker = broker
        self.server = Server("main:app", cwd=Path.cwd())

    def add(self, task: str, argument: str, count: int = 1) -> list[str]:
        """Calls of a task, added in one request; their ids."""
        answer = httpx.post(f"{self.server.url}/{task}/{argument}", params={"count": count}, timeout=20)
        assert answer.status_code == 200, answer.text
        ids: list[str] = answer.json()
        return ids

    def records(self) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in ledger_rows(Path("segundo.db"))}

    def record(self, id: str) -> dict[str, Any]:
        return self.records()[id]

    def states(self) -> Counter[str]:
        return Counter(row["state"] for row in self.records().values())

    def ended(self, ids: Sequence[str] | None = None) -> bool:
        records = self.records()
        return all(records[id]["finished_at"] is not None for id in (records if ids is None else ids))

    def cancel(self, id: str) -> None:
        subprocess.run([sys.executable, "-m", "segundo", "cancel", id], check=True, capture_output=True)

    def error(self, id: str) -> str:
        return str(json.loads(self.record(id)["error"])["type"])

    def events(self) -> list[list[str]]:
        """Each event as its words: pid, verb, and what else."""
        events = Path("events.txt")
        return [line.split() for line in events.read_text().splitlines()] if events.exists() else []

    def said(self, *words: object) -> int:
        """How often this was said."""
        return [event[1:] for event in self.events()].count([str(word) for word in words])

    def who(self, *words: object) -> list[int]:
        """The processes that said it."""
        return [int(event[0]) for event in self.events() if event[1:] == [str(word) for word in words]]
