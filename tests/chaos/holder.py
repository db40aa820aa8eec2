"""`python -m tests.chaos.holder`: keeps a network namespace until its standard input ends, then empties it.

That is also when whoever started it is killed: nothing outlives a test.
"""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path


def others() -> list[int]:
    """Every other process of this namespace."""
    mine = Path("/proc/self/ns/net").readlink()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):  # it ended meanwhile; or is no process
            if int(entry.name) != os.getpid() and (entry / "ns" / "net").readlink() == mine:
                found.append(int(entry.name))
    return found


def main() -> None:
    print("here", flush=True)
    sys.stdin.buffer.read()
    while pids := others():
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
