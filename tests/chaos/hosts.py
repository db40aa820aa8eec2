"""Hosts on one machine: network namespaces with addresses of their own, at one switch whose links can be cut.

Needs root on Linux. A namespace lives while its holder does, which ends with whoever made it, however that
ends: then all processes of the host are killed, and its addresses are gone.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.chaos import holder
from tests.support import ROOT

CLONE_NEWNET = 0x40000000
HERE = Path("/proc/thread-self/ns/net")
NETWORK = "10.77.0"


def missing() -> str | None:
    """What this machine lacks for hosts of their own; None if nothing."""
    if not HERE.exists() or os.geteuid() != 0:
        return "network namespaces need root on Linux"
    programs = [program for program in ("ip", "unshare", "nsenter") if shutil.which(program) is None]
    if programs:
        return f"not installed: {' '.join(programs)} (iproute2, util-linux)"
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True)
    return f"no network namespaces: {tried.stderr.strip()}" if tried.returncode else None


class Host:
    """One namespace. A context manager that keeps it."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address

    def __enter__(self) -> Self:
        self._holder = subprocess.Popen(
            ["unshare", "--net", sys.executable, "-m", holder.__name__],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"here\n"
        self.ip("link", "set", "lo", "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.communicate()  # closes its standard input, and waits

    @property
    def pid(self) -> int:
        return self._holder.pid

    @property
    def namespace(self) -> Path:
        return Path(f"/proc/{self.pid}/ns/net")

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What this thread does, starts and connects to meanwhile, it does on this host."""
        with HERE.open() as back, self.namespace.open() as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(back.fileno())

    def ip(self, *command: str) -> None:
        subprocess.run(["nsenter", f"--net={self.namespace}", "ip", *command], check=True)


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Network:
    """Hosts by name, each with a link to one switch. A context manager."""

    def __init__(self, *names: str) -> None:
        self._switch = Host("switch", "")
        self._hosts = {name: Host(name, f"{NETWORK}.{n}") for n, name in enumerate(names, 1)}
        self._stack = ExitStack()

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._switch)
            self._switch.ip("link", "add", "bridge", "type", "bridge")
            self._switch.ip("link", "set", "bridge", "up")
            for host in self._hosts.values():
                stack.enter_context(host)
                self._join(host)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _join(self, host: Host) -> None:
        peer = ("type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        self._switch.ip("link", "add", host.name, *peer)
        self._switch.ip("link", "set", host.name, "up")
        host.ip("address", "add", f"{host.address}/24", "dev", "eth0")
        host.ip("link", "set", "eth0", "up")
        self.heal(host.name)

    def cut(self, name: str) -> None:
        """Unplug the host at the switch: whatever is sent to it or by it is dropped, and nobody is told."""
        self._switch.ip("link", "set", name, "nomaster")

    def heal(self, name: str) -> None:
        self._switch.ip("link", "set", name, "master", "bridge")
