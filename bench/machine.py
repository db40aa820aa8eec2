"""What the figures were measured on, and how busy it was with other things."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
import sys
import time
from pathlib import Path

from bench.errors import BenchError

MEASURED_WITH = ("segundo", "fastapi", "starlette", "pydantic", "uvicorn", "uvloop", "httptools")
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
    parts = [f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
    for name in MEASURED_WITH:
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
