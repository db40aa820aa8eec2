"""A way to a broker that can break off: only one side notices, as when a link drops the last word."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from scripts.ports import free_port


class Proxy:
    """Passes on what comes, from its own `port` to another. A context manager."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.close()
        for pair in self._pairs:
            for each in pair:
                each.close()

    def break_off(self) -> None:
        """End every connection towards those who came; the other side believes that it lives."""
        for client, _ in self._pairs:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):  # it is over
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._pairs.append((client, server))
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
