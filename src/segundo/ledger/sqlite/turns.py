"""The lock file beside a ledger: whose turn it is to write, and which processes live.

Every lock is one byte of one file, held with `lockf`: the kernel frees it when its process dies, and a forked
child does not inherit it. POSIX drops *all* of a process's locks on a file when the process closes *any*
descriptor of it, and never makes two threads of one process wait for each other. So each process opens the
file once, and shares it.
"""

import errno
import fcntl
import os
import struct
import sys
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from segundo.errors import LedgerForked

NEXT, TURN = 0, 1
WORKERS = 16  # worker number n holds byte WORKERS + n


class Turns:
    """One process's view of the lock file. Get it with `Turns.at(path)`, give it back with `close()`."""

    # Per process by nature, as the locks are: two of these on one file would break each other's locks.
    _open: ClassVar["dict[Path, Turns]"] = {}
    _opening = threading.Lock()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pid = os.getpid()
        self._users = 0
        self._thread_turn = threading.Lock()
        self._threads_wait: list[None] = []
        self._mine: set[int] = set()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @classmethod
    def at(cls, path: Path) -> "Turns":
        with cls._opening:
            turns = cls._open.get(path)
            if turns is not None and turns.pid != os.getpid():
                # SQLite takes the locks that it remembers for its own, and here they are the parent's: what
                # we commit could be gone (test_a_forked_process_cannot_open_what_its_parent_has_open).
                raise LedgerForked(
                    "this process was forked while the ledger was open: fork before it is opened, or spawn"
                )
            if turns is None:
                turns = cls._open[path] = cls(path)
            turns._users += 1
            return turns

    def close(self) -> None:
        with self._opening:
            self._users -= 1
            if self._users == 0:
                self._open.pop(self.path, None)
                os.close(self._fd)

    @classmethod
    def living(cls, path: Path, numbers: Iterable[int]) -> set[int]:
        """Which of these workers live: asked of the kernel, from outside, without taking a lock."""
        with cls._opening:
            ours = cls._open.get(path)
            if ours is not None and ours.pid == os.getpid():  # to open the file again would drop our locks
                return {n for n in numbers if n in ours._mine or _is_locked(ours._fd, WORKERS + n)}
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return set()
        try:
            return {n for n in numbers if _is_locked(fd, WORKERS + n)}
        finally:
            os.close(fd)

    @contextmanager
    def turn(self) -> Generator[None]:
        """Inside, it is this process's turn to write."""
        self.take()
        try:
            yield
        finally:
            self.give()

    def take(self) -> None:
        """Wait for this process's turn to write. Who has just written stands behind who waits.

        Plain SQLite starves: the process that has just committed wins the lock again. Here it must first get
        `next`, which the longest waiting one holds
        (test_who_waits_for_a_turn_gets_it_before_who_has_just_had_it).
        """
        if not self._thread_turn.acquire(blocking=False):
            self._threads_wait.append(None)  # a list, since `+= 1` of two threads can count one
            self._thread_turn.acquire()
            self._threads_wait.pop()
        try:
            self._lock(NEXT)
            try:
                self._lock(TURN)
            finally:
                self._unlock(NEXT)
        except BaseException:
            self._thread_turn.release()
            raise

    def give(self) -> None:
        """Let the next one have the turn."""
        try:
            self._unlock(TURN)
        finally:
            self._thread_turn.release()

    def wanted(self) -> bool:
        """Whether somebody waits for the turn that is ours now."""
        return bool(self._threads_wait) or _is_locked(self._fd, NEXT)

    def live(self, number: int) -> bool:
        """Hold the lock of worker `number` until `die`, or our process's end; False if we held it already."""
        if number in self._mine:
            return False
        self._lock(WORKERS + number)
        self._mine.add(number)
        return True

    def die(self, number: int) -> None:
        self._mine.discard(number)
        self._unlock(WORKERS + number)

    def bury(self, number: int) -> bool:
        """True if worker `number` is dead; its lock is then ours until `die`. Our own workers are alive."""
        if number in self._mine:
            return False
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, WORKERS + number)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True

    def _lock(self, byte: int) -> None:
        while True:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, byte)
                return
            except OSError as error:
                # The kernel sees processes, not threads: with two ledgers each, it can suspect a deadlock
                # that is none.
                if error.errno != errno.EDEADLK:
                    raise
                time.sleep(0.001)

    def _unlock(self, byte: int) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, byte)


def lock_file(ledger: Path) -> Path:
    """Beside the file that a symlink names, as SQLite does: else two names would be two sets of locks."""
    real = ledger.resolve()
    return real.with_name(real.name + "-lock")


# C's `struct flock`, and where in it the kind of lock stands: in the question, and in the answer.
_FLOCK, _KIND = ("qqihh", 3) if sys.platform == "darwin" else ("hhqqi4x", 0)


def _is_locked(fd: int, byte: int) -> bool:
    """Whether another process holds this byte. Only asks, so `fd` need not be writable."""
    question = (byte, 1, 0, fcntl.F_RDLCK, 0) if _KIND else (fcntl.F_RDLCK, 0, byte, 1, 0)
    answer = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack(_FLOCK, *question))
    return bool(struct.unpack(_FLOCK, answer)[_KIND] != fcntl.F_UNLCK)
