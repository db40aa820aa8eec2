"""Real brokers, servers and Celery workers, and what their processes said and stored."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.ports import free_port
from scripts.services import RabbitMQ, Redis, Service
from tests.support import Group, Server, ledger_rows

QUEUES = ("default", "emails")

# A Celery app that knows nothing of us, on the same broker.
STRANGER = """
import os
from celery import Celery

celery = Celery("stranger", broker=os.environ["SEGUNDO_BROKER"])
"""


@contextmanager
def a_broker(kind: type[RabbitMQ] | type[Redis]) -> Iterator[Service]:
    """A broker of its own, on a free port and in a folder that goes with it."""
    if kind.program() is None:
        pytest.skip(f"{kind.name} is not installed: `make services`")
    folder = Path(tempfile.mkdtemp(prefix="segundo-test-"))
    service = kind(folder / "server", free_port(kind.ports))
    try:
        yield service.start()
    finally:
        service.remove()
        shutil.rmtree(folder)


class CeleryWorker(Group):
    """`celery -A main:celery worker`, asked to stop by Celery's warm shutdown.

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
        command = [
            *(sys.executable, "-m", "celery", "-A", target, "worker", "-Q", ",".join(queues)),
            *("--loglevel", "INFO", "--without-gossip", "--without-mingle", *options),
        ]
        super().__init__(command, log=Path(cwd or "", f"celery-{id(self)}.log"), cwd=cwd, env=env)
        self._starts = 0

    def start(self, timeout: float = 60) -> None:
        self._starts = self._times_ready()
        super().start(timeout)

    def _ready(self) -> bool:
        return self._times_ready() > self._starts

    def _times_ready(self) -> int:
        return self.output().count(" ready.")


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
