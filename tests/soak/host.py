"""The processes of the app under the storm: a uvicorn server, and `segundo worker` processes beside it."""

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.soak import processes
from tests.support import Group, Server

APP = "tests.soak.app:app"
WORKER = (sys.executable, "-m", "segundo", "worker", APP)
QUIET = ("--no-access-log", "--log-level", "warning")


class Host:
    """All that runs the app. Each part leads a process group, which is what is killed and asked to stop."""

    def __init__(
        self, folder: Path, env: Mapping[str, str], *, workers: int, beside: int, loop: str = "auto"
    ) -> None:
        options = [*QUIET, "--loop", loop]
        if workers > 1:
            options += ["--workers", str(workers)]
        self._server = Server(APP, cwd=folder, env=env, options=options)
        self._several = workers > 1
        self._folder = folder
        self._env = env
        self._beside: list[Group] = []
        self._wanted = beside

    @property
    def port(self) -> int:
        return self._server.port

    def start(self) -> None:
        """Start whatever does not run."""
        if not self._server_pid():
            self._server.start(timeout=60)
        self._beside = [worker for worker in self._beside if worker.runs]
        while len(self._beside) < self._wanted:
            worker = Group(WORKER, log=self._folder / "worker.log", cwd=self._folder, env=self._env)
            worker.start()
            self._beside.append(worker)

    def groups(self) -> list[int]:
        server = self._server_pid()
        beside = [worker.pid for worker in self._beside if worker.runs]
        return ([server] if server else []) + beside

    def processes(self) -> list[str]:
        """The living processes that run the app: not uvicorn's supervisor, nor its helpers."""
        found: list[str] = []
        for group in self.groups():
            if self._several and group == self._server_pid():
                children = processes.children_of(group)
                found += [child for child in children if "spawn_main" in processes.command_of(child)]
            elif (process := processes.process_of(group)) is not None:
                found.append(process)
        return found

    def kill(self) -> None:
        """`kill -9` everything at once."""
        for worker in self._beside:
            with suppress(ProcessLookupError):
                worker.signal(signal.SIGKILL)
        self._server.kill()
        for worker in self._beside:
            worker.kill()

    def stop(self) -> None:
        """Ask everything to stop (SIGTERM); kill what does not, after 15 seconds."""
        for worker in self._beside:
            if worker.runs:
                worker.terminate()
        self._server.stop()
        for worker in self._beside:
            worker.stop()

    def _server_pid(self) -> int | None:
        """The server's pid while it lives."""
        with suppress(AssertionError):  # it was never started
            return self._server.pid if processes.process_of(self._server.pid) is not None else None
        return None


def send(process: str, number: signal.Signals) -> None:
    """Send a signal to this very process; one that has died meanwhile needs none."""
    if processes.alive(process):
        with suppress(ProcessLookupError):
            os.kill(processes.pid_of(process), number)
