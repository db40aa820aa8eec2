"""A disk that fails, and what it would keep if the power went: `disk.c`, from inside and from outside."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from random import Random
from struct import Struct
from tempfile import TemporaryDirectory

from tests.support import ROOT

SOURCE = Path(__file__).with_name("disk.c")
HEAD = Struct("=qqqq")
SECTOR = 512
LEDGER = "ledger.db"  # the name of the ledgers that the disk fails for


class Op(IntFlag):
    WRITE = 1
    SYNC = 2
    TRUNCATE = 4
    NOTE = 8  # what the process had to say at that moment
    LOST = 16  # a sync that failed: Linux then forgets what it should have written


# Outside: to run a module of ours on such a disk


def why_not() -> str | None:
    """What is missing on this machine to make the disk fail."""
    if sys.platform != "linux":
        return "only Linux lets a library stand before the system calls of a process (LD_PRELOAD)"
    return None if shutil.which("cc") else "there is no C compiler (cc) to compile disk.c"


def build(folder: Path) -> Path:
    library = folder / "disk.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return library


@contextmanager
def fast_folder(own: Path) -> Iterator[Path]:
    """Where a sync costs nothing, if there is such a place: here faults are made, not waited for."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(prefix="segundo-", dir=memory if memory.is_dir() else own) as folder:
        yield Path(folder)


def run(library: Path, module: str, *arguments: object, cwd: Path, timeout: float = 50) -> str:
    """What the module prints when it runs on this disk; it must end well."""
    ran = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        env={**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    return ran.stdout


# Inside: to let it fail


class Disk:
    """The disk that this process runs on. Faults come at the nth operation from `arm` on."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.disk_watch(LEDGER.encode())

    def arm(self, what: Op, nth: int, *, error: int, number: int = 1, torn: bool = False) -> None:
        """`number` operations of these kinds fail with this errno, from the nth on; 0: until `heal`."""
        self._library.disk_arm(int(what), ctypes.c_long(nth), ctypes.c_long(number), error, int(torn))

    def heal(self) -> None:
        """Nothing fails from now on; `failed` stays."""
        self._library.disk_arm(0, ctypes.c_long(0), ctypes.c_long(0), 0, 0)

    @property
    def failed(self) -> int:
        return int(self._library.disk_failed())

    def keep_diary(self, path: Path) -> None:
        """From now on everything is written down there, for `Diary`."""
        self._library.disk_diary(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))

    def note(self, text: str) -> None:
        self._library.disk_note(text.encode())


# Outside: what would be left after a power cut


@dataclass(frozen=True)
class Entry:
    op: Op
    file: int  # 1: the ledger's file, 2: its WAL
    offset: int
    data: bytes


def read_diary(path: Path) -> list[Entry]:
    return list(_entries(path.read_bytes()))


def _entries(diary: bytes) -> Iterator[Entry]:
    at = 0
    while at < len(diary):
        op, file, offset, length = HEAD.unpack_from(diary, at)
        at += HEAD.size
        yield Entry(Op(op), file, offset, diary[at : at + length])
        at += length


class Platter:
    """One file as the disk has it: what was synced, and later writes of which any part may be there."""

    def __init__(self, content: bytes = b"") -> None:
        self._safe = bytearray(content)
        self._pending: list[Entry] = []

    def take(self, entry: Entry, chance: Random) -> None:
        """The next thing that happened to it. What a sync that failed has left behind, chance says."""
        if entry.op is Op.SYNC:
            for each in self._pending:
                _apply(self._safe, each)
        elif entry.op is Op.LOST:
            self._safe = self._some_of_it(chance)
        if entry.op in (Op.SYNC, Op.LOST):
            self._pending.clear()
        else:
            self._pending.append(entry)

    def after_a_power_cut(self, chance: Random) -> bytes:
        return bytes(self._some_of_it(chance))

    def _some_of_it(self, chance: Random) -> bytearray:
        """The synced part, and of each later write all, nothing, or some of its sectors."""
        kept = bytearray(self._safe)
        likely = chance.choice((0.0, chance.random(), 1.0))
        for entry in self._pending:
            if chance.random() < likely:
                _apply(kept, entry)
            elif likely and entry.op is Op.WRITE and chance.random() < 0.5:
                _apply_torn(kept, entry, chance)
        return kept


def _apply(content: bytearray, entry: Entry) -> None:
    if entry.op is Op.TRUNCATE:
        del content[entry.offset :]
        content.extend(bytes(entry.offset - len(content)))
    else:
        content.extend(bytes(max(0, entry.offset - len(content))))
        content[entry.offset : entry.offset + len(entry.data)] = entry.data


def _apply_torn(content: bytearray, entry: Entry, chance: Random) -> None:
    for at in range(0, len(entry.data), SECTOR):
        if chance.random() < 0.5:
            part = entry.data[at : at + SECTOR]
            _apply(content, Entry(Op.WRITE, entry.file, entry.offset + at, part))
