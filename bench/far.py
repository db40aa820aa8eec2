"""A broker behind a link that can be cut: packets to it are then dropped, and nothing answers.

A network namespace of its own holds the broker. The link is cut by a wrong address of the other end's card in
the neighbour table, so that what is sent is delivered to nobody. Needs root and `ip`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from bench.errors import BenchError
from scripts.services import RabbitMQ, Redis, Service

HERE, THERE = "10.213.77.1", "10.213.77.2"
NOBODY = "02:00:00:00:00:99"


class Link:
    """Between this host and the namespace."""

    def __init__(self) -> None:
        self.name = f"segundo{os.getpid()}"
        self._card = f"sg{os.getpid()}"

    def ip(self, *words: str) -> str:
        done = subprocess.run(["ip", *words], capture_output=True, text=True)
        if done.returncode:
            raise BenchError(f"ip {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def make(self) -> None:
        peer = f"{self._card}p"
        self.ip("netns", "add", self.name)
        self.ip("link", "add", self._card, "type", "veth", "peer", "name", peer, "netns", self.name)
        self.ip("addr", "add", f"{HERE}/30", "dev", self._card)
        self.ip("link", "set", self._card, "up")
        self.ip("-n", self.name, "addr", "add", f"{THERE}/30", "dev", peer)
        self.ip("-n", self.name, "link", "set", peer, "up")
        self.ip("-n", self.name, "link", "set", "lo", "up")
        self._address = self.ip("-n", self.name, "link", "show", peer).partition("link/ether ")[2].split()[0]
        self.heal()

    def heal(self) -> None:
        self._neighbour(self._address)

    def cut(self) -> None:
        self._neighbour(NOBODY)

    def _neighbour(self, address: str) -> None:
        self.ip("neigh", "replace", THERE, "lladdr", address, "dev", self._card, "nud", "permanent")

    def remove(self) -> None:
        for words in (("link", "del", self._card), ("netns", "del", self.name)):
            subprocess.run(["ip", *words], capture_output=True)


@contextmanager
def link() -> Iterator[Link]:
    if os.getuid() != 0 or shutil.which("ip") is None:
        raise BenchError("a link that can be cut needs root and `ip` (iproute2)")
    made = Link()
    try:
        made.make()
        yield made
    finally:
        made.remove()


class _Far(Service):
    link: Link

    def command(self) -> Sequence[str]:
        return ["ip", "netns", "exec", self.link.name, *super().command()]

    def url(self) -> str:
        return super().url().replace("127.0.0.1", THERE)

    def ready(self) -> bool:
        with closing(socket.socket()) as probe:
            probe.settimeout(1)
            return probe.connect_ex((THERE, self.port)) == 0


class FarRedis(_Far, Redis):
    def command(self) -> Sequence[str]:
        return [*super().command(), "--bind", THERE, "--protected-mode", "no"]


class FarRabbitMQ(_Far, RabbitMQ):
    def environment(self) -> dict[str, str]:
        return {**super().environment(), "RABBITMQ_NODE_IP_ADDRESS": THERE}

    def ready(self) -> bool:
        return "Server startup complete" in self._said() and super().ready()


def far_broker(kind: str, directory: Path, port: int, link: Link) -> Service:
    options = ["loopback_users = none"]  # its guest may come from another host
    made: FarRedis | FarRabbitMQ = (
        FarRedis(directory / kind, port) if kind == "redis" else FarRabbitMQ(directory / kind, port, options)
    )
    made.link = link
    return made
