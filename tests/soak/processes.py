"""Processes as the kernel shows them in /proc: their name for ever, whether they live, and their children."""

from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
available = (PROC / "self" / "stat").exists()


class Stat(NamedTuple):
    state: str
    parent: int
    birth: int


def _stat(pid: int) -> Stat | None:
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces
    return Stat(state=fields[0], parent=int(fields[1]), birth=int(fields[19]))


def process_of(pid: int) -> str | None:
    """The process's name, `pid@birth`, which no later process has; None once it is dead, a zombie too."""
    stat = _stat(pid)
    return None if stat is None or stat.state in "ZX" else f"{pid}@{stat.birth}"


def pid_of(process: str) -> int:
    return int(process.partition("@")[0])


def alive(process: str) -> bool:
    return process_of(pid_of(process)) == process


def children_of(pid: int) -> list[str]:
    """The living direct children of a process, oldest first."""
    found: list[tuple[int, str]] = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        stat = _stat(int(entry.name))
        if stat is not None and stat.parent == pid and stat.state not in "ZX":
            found.append((stat.birth, f"{entry.name}@{stat.birth}"))
    return [name for _, name in sorted(found)]


def command_of(process: str) -> str:
    try:
        return (
            (PROC / str(pid_of(process)) / "cmdline")
            .read_bytes()
            .replace(b"\0", b" ")
            .decode(errors="replace")
        )
    except (FileNotFoundError, ProcessLookupError):
        return ""
