"""What a person at a terminal does: types a command, reads the answer, starts a worker and stops it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

from tests.support import wait_until

SEGUNDO = (sys.executable, "-m", "segundo")


class Answer(NamedTuple):
    code: int
    out: str
    err: str


def segundo(*arguments: object, env: Mapping[str, str] | None = None) -> Answer:
    """`segundo …` in a process of its own, in the working directory, on a terminal of 80 columns."""
    done = subprocess.run(
        [*SEGUNDO, *map(str, arguments)],
        env={**os.environ, "COLUMNS": "80", **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


class Worker:
    """`segundo worker …` in the working directory; entering waits until it has started."""

    count = 0

    def __init__(self, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        Worker.count += 1
        self._log = Path(f"worker-{Worker.count}.log").absolute()
        self._command = [*SEGUNDO, "worker", *arguments]
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            wait_until(lambda: self.said("Ctrl-C stops it") or self._process.poll() is not None, 20)
            assert self._process.poll() is None, self.output()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self._process.send_signal(number)

    def ended(self, timeout: float = 20) -> int:
        """Its exit code, once it has ended by itself."""
        return self._process.wait(timeout)

    def output(self) -> str:
        return self._log.read_text()

    def said(self, words: str) -> bool:
        return words in self.output()
