"""What tests of real processes and files share: waiting, ports, servers, a look into the ledger."""

import inspect
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import anyio

from scripts.ports import free_port

ROOT = Path(__file__).resolve().parents[1]
T = TypeVar("T")


def wait_until(predicate: Callable[[], T], timeout: float = 10, every: float = 0.01) -> T:
    """Call `predicate` until what it returns is true, and return that; fail after `timeout` seconds."""
    give_up = time.monotonic() + timeout
    while not (value := predicate()):
        assert time.monotonic() < give_up, _never(predicate, timeout, value)
        time.sleep(every)
    return value


async def wait_until_async(
    predicate: Callable[[], T | Awaitable[T]], timeout: float = 10, every: float = 0.01
) -> T:
    """`wait_until` that lets the event loop run meanwhile; `predicate` may be `async def`."""
    give_up = time.monotonic() + timeout
    while True:
        answer = predicate()
        value = cast(T, await answer if inspect.isawaitable(answer) else answer)
        if value:
            return value
        assert time.monotonic() < give_up, _never(predicate, timeout, value)
        await anyio.sleep(every)


def _never(predicate: Callable[[], object], timeout: float, last: object) -> str:
    code = getattr(predicate, "__code__", None)
    where = f"{code.co_filename}:{code.co_firstlineno}" if code else repr(predicate)
    return f"did not come true within {timeout} s, last {last!r}: {where}"


SERVERS = {
    "uvicorn": ("-m", "uvicorn", "--port", "{port}"),
    "hypercorn": ("-m", "hypercorn", "--bind", "127.0.0.1:{port}"),
    "granian": ("-m", "granian", "--interface", "asgi", "--port", "{port}"),
}


class Group:
    """A command in a process group of its own, kept in `log` with all that it prints, over every start.

    A context manager: entering starts it and waits until it is ready, leaving stops every process of it.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        self._command = command
        self._cwd = cwd
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.stop()

    @property
    def pid(self) -> int:
        """The process that was started, as a server's supervisor with `--workers`."""
        assert self._process is not None, "it has not been started"
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether that process is there, and has not ended."""
        return self._process is not None and self._process.poll() is None

    def pids(self) -> list[int]:
        """Every living process of the group, the supervisor and its helpers too."""
        return living(self.pid)

    def start(self, timeout: float = 20) -> None:
        """Start it, also again after `kill` or `stop`, and wait until it is ready."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(self._has_started, timeout)
        except BaseException:
            self.stop()
            raise

    def _has_started(self) -> bool:
        assert self.runs, f"it ended while starting:\n{self.output()}"
        return self._ready()

    def _ready(self) -> bool:
        """Whether it does what it is there for."""
        return True

    def output(self) -> str:
        """All that its processes printed so far, over every start."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def said(self, words: str) -> bool:
        return words in self.output()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group at once."""
        os.killpg(self.pid, number)

    def kill(self) -> None:
        """`kill -9` the whole group, as an out-of-memory killer or a deploy that lost patience would."""
        with suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.wait()
        wait_until(lambda: not self.pids())

    def pause(self) -> None:
        """Freeze the whole group (SIGSTOP): its files are then as a power cut would leave them."""
        self.signal(signal.SIGSTOP)
        wait_until(lambda: all(_state(pid) in "TtZX" for pid in self.pids()))

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask it to stop (SIGTERM) as a process manager does, and do not wait."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, timeout: float = 30) -> int:
        """Wait until the started process has ended, and return its exit code (-9 after `kill -9`)."""
        assert self._process is not None
        return self._process.wait(timeout)

    def stop(self, timeout: float = 15) -> int:
        """End it however it stands: SIGTERM, then `kill -9` for the group if it takes over `timeout` seconds.

        Of one that has already ended this only returns the exit code.
        """
        assert self._process is not None
        if self.runs:
            self.resume()
            self.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
        if self.pids():  # children that outlived their supervisor
            self.kill()
        return self._process.wait()


class Server(Group):
    """`uvicorn target` on a loopback port that it keeps over restarts; ready when it accepts connections.

    `options` go to uvicorn (`"--workers", "4"`), or to the other `kind` of server.
    """

    def __init__(
        self,
        target: str,
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        python: Sequence[str] = (sys.executable,),
        port: int | None = None,
        kind: str = "uvicorn",
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [part.format(port=self.port) for part in SERVERS[kind]]
        super().__init__(
            [*python, *command, *options, target], log=cwd / f"server-{self.port}.log", cwd=cwd, env=env
        )

    def _ready(self) -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def living(group: int) -> list[int]:
    """The processes of a group, zombies left out: without a parent that reaps, one stays that for long."""
    if not Path("/proc/self/stat").exists():
        listed = subprocess.run(
            ["ps", "-axo", "pid=,pgid=,stat="], capture_output=True, text=True, check=True
        )
        rows = (line.split() for line in listed.stdout.splitlines())
        return [int(pid) for pid, pgid, state in rows if int(pgid) == group and not state.startswith("Z")]
    found = (_stat(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid, state, pgid in filter(None, found) if pgid == group and state not in "ZX"]


def _state(pid: int) -> str:
    """The kernel's letter for what a process does: R, S, T (stopped), Z …; X once it is gone."""
    if not Path("/proc/self/stat").exists():
        listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
        return listed.stdout.strip()[:1] or "X"
    row = _stat(Path(f"/proc/{pid}"))
    return row[1] if row else "X"


def _stat(process: Path) -> tuple[int, str, int] | None:
    try:
        text = (process / "stat").read_text()
    except OSError:
        return None  # ended meanwhile
    # The name in parentheses may hold anything, so read from its end.
    state, _parent, group = text.rpartition(")")[2].split()[:3]
    return int(process.name), state, int(group)


def ledger_rows(
    path: Path, sql: str = "SELECT * FROM records ORDER BY id", *values: object
) -> list[dict[str, Any]]:
    """Rows of a SQLite ledger, read past the library: what is on disk, not what Segundo says of it."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        connection.text_factory = lambda text: text.decode("utf-8", "replace")  # a test may have forged it
        return [dict(row) for row in connection.execute(sql, values)]
