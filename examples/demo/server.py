"""The sign-up app under uvicorn, in a process that can be killed and started again."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from pathlib import Path
from typing import Any

import httpx

from examples.demo.patience import wait_until

ROOT = Path(__file__).parents[2]


class Server:
    """`up` is set while the app answers. All that it writes lands in `folder`, its output in `app.log`."""

    def __init__(self, folder: Path, *, smtp_port: int) -> None:
        self.folder = folder
        self.ledger = folder / "segundo.db"
        self.uploads = folder / "uploads"
        self.audit_log = folder / "audit.log"
        self.log = folder / "app.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.up = asyncio.Event()
        self._smtp_port = smtp_port
        self._process: Process | None = None

    async def start(self) -> None:
        """Start the app and return when it answers."""
        command = [sys.executable, "-m", "uvicorn", "examples.signup.app:app", "--app-dir", str(ROOT)]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--no-access-log"]
        with self.log.open("ab") as log:
            # In a session of its own, so that Ctrl+C reaches the demo alone, which then stops the app.
            self._process = await asyncio.create_subprocess_exec(
                *command, cwd=self.folder, env=self._environment(),
                stdin=DEVNULL, stdout=log, stderr=STDOUT, start_new_session=True,
            )  # fmt: skip
        await wait_until(self._answers, timeout=30, what=f"the app to answer (its output is in {self.log})")
        self.up.set()

    async def kill(self) -> None:
        """`kill -9`: the process gets no chance to finish or to note anything."""
        self.up.clear()
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Stop as a deploy would, and kill what does not stop. Harmless on an app that is not running."""
        self.up.clear()
        try:
            await asyncio.wait_for(self._end(signal.SIGTERM), timeout=15)
        except TimeoutError:
            await self._end(signal.SIGKILL)

    async def _end(self, by: signal.Signals) -> None:
        if self._process and self._process.returncode is None:
            self._process.send_signal(by)
            await self._process.wait()

    async def _answers(self) -> bool:
        if self._process and self._process.returncode is not None:
            raise RuntimeError(
                f"the app ended with exit code {self._process.returncode}:\n{self.log.read_text()}"
            )
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                return (await client.get(f"{self.url}/docs")).status_code == 200
        except httpx.TransportError:
            return False

    def _environment(self) -> dict[str, str]:
        """The caller's own settings of Segundo or of the app would lead the run to the caller's files."""
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("SEGUNDO_", "SIGNUP_", "SMTP_"))
        }
        smtp: dict[str, Any] = {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(self._smtp_port)}
        return inherited | smtp


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
