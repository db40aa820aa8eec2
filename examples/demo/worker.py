"""A Celery worker that runs what the sign-up app records: Celery's ordinary command, two slots."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from examples.demo.program import ROOT, Program


class Worker(Program):
    """Number `number`. On another host it would be started by the same command."""

    def __init__(self, number: int, folder: Path, environment: Mapping[str, str]) -> None:
        of_the_app = {"SEGUNDO_APP": "examples.signup.app:app", "PYTHONPATH": str(ROOT)}
        super().__init__(f"Celery worker {number}", folder, {**environment, **of_the_app})
        self._number = number
        self._ready = 0

    def command(self) -> Sequence[str]:
        options = ("-Q", "default", "-c", "2", "-n", f"worker{self._number}@%h", "--loglevel", "INFO")
        return [sys.executable, "-m", "celery", "-A", "segundo.celery", "worker", *options]

    async def start(self) -> None:
        self._ready = self._said_ready()
        await super().start()

    async def is_up(self) -> bool:
        return self._said_ready() > self._ready

    def _said_ready(self) -> int:
        return self.log.read_text(errors="replace").count(" ready.") if self.log.exists() else 0
