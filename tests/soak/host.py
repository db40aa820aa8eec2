"""The processes of the app under the storm: a uvicorn server, and `segundo worker` processes beside it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.soak import processes
from tests.support import Server, wait_until

APP = "tests.soak.app:app"
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
        self._env = {**os.environ, **env}
        self._beside: list[subprocess.Popen[bytes]] = []
        self._wanted = beside

    @property
    def port(self) -> int:
        return self._server.port

    def start(self) -> None:
        """Start whatever does not run."""
        if not self._server_pid():
            self._server.start(timeout=60)
        self._beside = [worker for worker in self._beside if worker.poll() is None]
        while len(self._beside) < self._wanted:
            self._beside.append(self._start_worker())

    def _start_worker(self) -> "subprocess.Popen[bytes]":
        with (self._folder / "worker.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "segundo", "worker", APP],
                cwd=self._folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def groups(self) -> list[int]:
        server = self._server_pid()
        beside = [worker.pid for worker in self._beside if worker.poll() is None]
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
            _send_to_group(worker.pid, signal.SIGKILL)
        self._server.kill()
        self._wait_for_workers()

    def stop(self) -> None:
        """Ask everything to stop (SIGTERM); kill what does not, after 15 seconds."""
        for worker in self._beside:
            _send_to_group(worker.pid, signal.SIGTERM)
        self._server.stop()
        self._wait_for_workers()

    def _wait_for_workers(self) -> None:
        with suppress(AssertionError):
            wait_until(lambda: all(worker.poll() is not None for worker in self._beside), timeout=15)
        for worker in self._beside:
            worker.kill()
            worker.wait()

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


def _send_to_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)
