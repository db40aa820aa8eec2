"""How many no-ops the processes of a worker have run."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

ADDRESS = "ada@example.com"  # what each no-op is given
COUNT = struct.Struct("q")


class Counter:
    """How many no-ops this process has run, in a file that others read: under a microsecond each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pid = 0
        self._count = 0

    def add(self) -> None:
        if self._pid != os.getpid():  # a pool's child
            self._pid, self._count = os.getpid(), 0
            path = self._folder / str(self._pid)
            path.write_bytes(bytes(COUNT.size))
            with path.open("r+b") as file:
                self._shared = mmap.mmap(file.fileno(), COUNT.size)
        self._count += 1
        COUNT.pack_into(self._shared, 0, self._count)


def executed(folder: Path) -> int:
    """By all processes."""
    return sum(COUNT.unpack(path.read_bytes() or bytes(COUNT.size))[0] for path in folder.iterdir())
