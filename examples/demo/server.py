"""The sign-up app under uvicorn."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from examples.demo.program import ROOT, Program
from scripts.ports import free_port


class Server(Program):
    """`up` is set while the app answers. All that it writes lands in `folder`, its output in `app.log`."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__("app", folder, environment)
        self.uploads = folder / "uploads"
        self.audit_log = folder / "audit.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.up = asyncio.Event()

    def command(self) -> Sequence[str]:
        where = ("--app-dir", str(ROOT), "--host", "127.0.0.1", "--port", str(self.port))
        return [sys.executable, "-m", "uvicorn", "examples.signup.app:app", *where, "--no-access-log"]

    async def start(self) -> None:
        await super().start()
        self.up.set()

    async def kill(self) -> None:
        self.up.clear()
        await super().kill()

    async def stop(self) -> None:
        self.up.clear()
        await super().stop()

    async def is_up(self) -> bool:
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                return (await client.get(f"{self.url}/docs")).status_code == 200
        except httpx.TransportError:
            return False
