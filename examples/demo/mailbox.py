"""A real SMTP server that keeps every email it accepts, as a file and as a count."""

import asyncio
import random
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session


class Mailbox:
    """`arrived` counts the emails of each address. The client is told `250` once the email is kept."""

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        self.folder = folder
        self.arrived: Counter[str] = Counter()
        self.port = port
        self._listing: ThreadingHTTPServer | None = None

    async def start(self) -> None:
        self.folder.mkdir()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: SMTP(self, hostname="mailbox"), "127.0.0.1", self.port
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 (aiosmtpd's name)
        await asyncio.sleep(random.uniform(0.01, 0.05))  # as long as a mail server elsewhere takes to answer
        for address in envelope.rcpt_tos:
            self.arrived[address] += 1
            path = self.folder / f"{address}-{self.arrived[address]}.txt"
            path.write_bytes(envelope.original_content or b"")
        return "250 OK"

    def list_over_http(self) -> str:
        """Show the emails in a browser, and return the address."""
        handler = partial(QuietFiles, directory=str(self.folder))
        self._listing = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        Thread(target=self._listing.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._listing.server_port}/"

    def stop(self) -> None:
        self._server.close()
        if self._listing:
            self._listing.shutdown()


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Keep the terminal for the demo's own lines."""
