"""A program of the demo, in a process group of its own that can be killed whole and started again."""

import asyncio
import os
import signal
from abc import ABC, abstractmethod
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from examples.demo.patience import wait_until

ROOT = Path(__file__).parents[2]


class Program(ABC):
    """Runs `command` in `folder`, its output in `<name>.log` there; what is up is said by a subclass."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.folder = folder
        self.log = folder / f"{name.replace(' ', '-')}.log"
        self._environment = environment
        self._process: Process | None = None

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What to run."""

    @abstractmethod
    async def is_up(self) -> bool:
        """Whether it serves by now."""

    async def start(self) -> None:
        """Start it and return when it is up."""
        with self.log.open("ab") as log:
            # In a session of its own, so that Ctrl+C reaches the demo alone, which then stops the program.
            self._process = await asyncio.create_subprocess_exec(
                *self.command(), cwd=self.folder, env=self._environment,
                stdin=DEVNULL, stdout=log, stderr=STDOUT, start_new_session=True,
            )  # fmt: skip
        await wait_until(
            self._is_up_or_ended, timeout=60, what=f"{self.name} to start (its output is in {self.log})"
        )

    async def kill(self) -> None:
        """`kill -9`: it and its children get no chance to finish or to note anything."""
        if self._process:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()

    async def stop(self) -> None:
        """Stop as a deploy would, and kill what does not stop. Harmless on a program that is not running."""
        if self._process and self._process.returncode is None:
            self._process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), timeout=15)
        await self.kill()

    async def _is_up_or_ended(self) -> bool:
        if self._process and self._process.returncode is not None:
            raise RuntimeError(
                f"{self.name} ended with exit code {self._process.returncode}:\n{self.log.read_text()}"
            )
        return await self.is_up()
