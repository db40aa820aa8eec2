"""A disk whose fsync takes longer: a small library, compiled here, that is loaded before a server's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.errors import BenchError, Skipped

SOURCE = Path(__file__).with_name("slow_disk.c")
PROBE = """
import os, sqlite3, sys, time
db = sqlite3.connect(sys.argv[1])
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA synchronous=FULL")
db.execute("CREATE TABLE t (x)")
db.commit()
took = []
for _ in range(20):
    begun = time.perf_counter()
    db.execute("INSERT INTO t VALUES (1)")
    db.commit()
    took.append(time.perf_counter() - begun)
print(1e6 * sorted(took)[10])
"""


def slow_disk(delay_us: int, directory: Path) -> dict[str, str]:
    """The environment that makes a server's fsync `delay_us` slower, checked by timing SQLite commits in it.

    Skipped when there is no C compiler; an error when SQLite here does not feel the delay.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise Skipped("no C compiler (cc) to build the slow disk with")
    directory.mkdir(parents=True, exist_ok=True)
    library = directory / "slow_disk.so"
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE), "-ldl"]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode:
        raise Skipped(f"the slow disk does not compile: {built.stderr.strip()[:200]}")
    environ = {"LD_PRELOAD": str(library), "DELAY_FSYNC_US": str(delay_us)}
    usual, slow = (
        _commit_us(directory / f"{name}.db", extra) for name, extra in (("usual", {}), ("slow", environ))
    )
    if slow < usual + 0.8 * delay_us:
        raise BenchError(
            f"SQLite does not feel the slow disk: a commit takes {usual:.0f} us, and {slow:.0f} us with it"
        )
    return environ


def _commit_us(path: Path, environ: dict[str, str]) -> float:
    command = [sys.executable, "-c", PROBE, str(path)]
    return float(subprocess.check_output(command, env={**os.environ, **environ}, text=True))
