"""What a person at a terminal does: types a command, reads the answer, starts a worker and stops it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support import Group

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


class Worker(Group):
    """`segundo worker …` in the working directory, killed as it is left; ready once it says how it stops."""

    count = 0

    def __init__(self, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        Worker.count += 1
        log = Path(f"worker-{Worker.count}.log").absolute()
        super().__init__([*SEGUNDO, "worker", *arguments], log=log, env=env)

    def _ready(self) -> bool:
        return self.said("Ctrl-C stops it")

    def __exit__(self, *error: object) -> None:
        self.kill()
