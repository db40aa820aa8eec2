"""What the figures were measured on, and how busy it was with other things."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.errors import BenchError

MEASURED_WITH = ("segundo", "fastapi", "starlette", "pydantic", "uvicorn", "uvloop", "httptools")
WITH_BROKER = ("celery", "kombu", "amqp", "redis", "psycopg")
NOT_A_DISK = {"tmpfs", "ramfs", "devtmpfs"}


def machine(directory: Path) -> str:
    """One line: processor, cores, memory, kernel, and the file system that the ledgers are on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}, {file_system(directory)}"
    )


def versions() -> str:
    """One line: Python, SQLite, and the packages that take part."""
    return ", ".join(
        (
            f"Python {platform.python_version()}",
            f"SQLite {sqlite3.sqlite_version}",
            packages(MEASURED_WITH),
        )
    )


def packages(names: Sequence[str]) -> str:
    parts: list[str] = []
    for name in names:
        try:
            parts.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            parts.append(f"{name} not installed")
    return ", ".join(parts)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def file_system(directory: Path) -> str:
    """The type of the file system that holds `directory`, from the longest mount point above it."""
    target = str(directory.resolve())
    best, kind = "", "unknown file system"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, fs_type, *_ = line.split()
        below = target == point or target.startswith(point.rstrip("/") + "/")
        if below and len(point) >= len(best):
            best, kind = point, fs_type
    return kind


def require(directory: Path) -> None:
    """Refuse a machine on which the figures would mean something else."""
    if sys.platform != "linux":
        raise BenchError("the benchmarks read /proc and need Linux")
    if (kind := file_system(directory)) in NOT_A_DISK:
        raise BenchError(
            f"{directory} is on {kind}, where fsync costs nothing: name a directory on a disk by --dir"
        )


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, all its threads, to the nanosecond (/proc/PID/stat rounds to 10 ms)."""
    per_process_clock = (~pid << 3) | 2  # what clock_getcpuclockid(3) returns on Linux
    return time.clock_gettime(per_process_clock)


def cpu_seconds_below(pid: int) -> float:
    """CPU time of a process and of its descendants that live, to 10 ms."""
    children: dict[int, list[int]] = {}
    used: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        number = int(path.parent.name)
        children.setdefault(int(fields[1]), []).append(number)
        used[number] = int(fields[11]) + int(fields[12])
    family = [pid]
    for member in family:
        family += children.get(member, [])
    return sum(used.get(member, 0) for member in family) / os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """CPU seconds that all processes of the machine have used since it started."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = (
        int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def wait_for_quiet(patience: float, limit: float = 0.2) -> bool:
    """Wait, `patience` seconds at most, until processes use less than `limit` of one core; say if they do."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        before = busy_seconds()
        time.sleep(0.5)
        if (busy_seconds() - before) / 0.5 < limit:
            return True
    return patience <= 0
