"""The servers that tests and examples need: real ones, on private ports, each with a data folder of its own.

    python -m scripts.services install [NAME...]    Debian's packages of what is missing (needs root)
    python -m scripts.services start [NAME...]      start what does not run yet, and print where it listens
    python -m scripts.services stop [NAME...]
    python -m scripts.services status [NAME...]

Another server is a subclass of `Service`, and a row in `SERVICES`. Tests start theirs in the same way, beside
these, on a free port and in a folder that goes with them.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, Self

PATIENCE = 90.0  # seconds for a server to begin, or to end: RabbitMQ takes 10 on a quiet machine
HOST = "127.0.0.1"


class NotInstalled(Exception):
    """The server's programs are not on this machine; the message says how to get them."""


class Service(ABC):
    """A server in the foreground of a process that we start, and end by its id.

    `folder` holds its data, its log and its pid, so that a later process can stop it, too. `options`: more of
    its settings; each server says in which form.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]  # Debian's
    usual_port: ClassVar[int]  # of `start`; a private one, so that no server of the machine is met
    ports: ClassVar[int] = 1  # how many it takes, its own and the next ones

    def __init__(
        self, folder: Path | None = None, port: int | None = None, options: Sequence[str] = ()
    ) -> None:
        self.folder = folder or Path(tempfile.gettempdir(), f"segundo-services-{os.getuid()}", self.name)
        self.port = port or self.usual_port
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None

    # What a server is

    @classmethod
    @abstractmethod
    def program(cls) -> str | None:
        """The path of its program; None if it is not installed."""

    @abstractmethod
    def prepare(self) -> None:
        """Make its data in `folder`, which is there and empty."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What runs it in the foreground."""

    @abstractmethod
    def url(self) -> str:
        """Where its clients find it."""

    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    @classmethod
    def user(cls) -> str | None:
        """Whom it runs as, where it does not run as root."""
        return None

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def ready(self) -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    # Life

    @classmethod
    def check(cls) -> str:
        program = cls.program()
        if program is None:
            packages = " ".join(cls.packages)
            raise NotInstalled(f"{cls.name} is not installed; `make services`, or apt-get install {packages}")
        return program

    def start(self) -> Self:
        """Start it and wait until it answers; also again, on the data that it left."""
        self.check()
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
            self._hand_over(self.folder)
            self.prepare()
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as_user(),
            )
        (self.folder / "pid").write_text(str(self._process.pid))
        self._wait_until(self._answers, "answer")
        return self

    def stop(self, number: signal.Signals | None = None) -> None:
        """End it, by its own signal or another, and wait; its data stay."""
        pid = self.pid
        if pid is not None:
            self._send(pid, number or self.stop_signal)
            self._wait_until(lambda: self.pid is None, "end")
        (self.folder / "pid").unlink(missing_ok=True)

    def _send(self, pid: int, number: signal.Signals) -> None:
        os.kill(pid, number)

    def signal(self, number: signal.Signals) -> None:
        pid = self.pid
        assert pid is not None, f"{self.name} does not run"
        self._send(pid, number)

    def remove(self) -> None:
        """End it, and delete all that it had."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int | None:
        """Of the process that was started, as long as it lives."""
        if self._process is not None:
            return self._process.pid if self._process.poll() is None else None
        try:
            pid = int((self.folder / "pid").read_text())
            os.kill(pid, 0)
        except (OSError, ValueError):
            return None
        return None if _is_zombie(pid) else pid

    def _answers(self) -> bool:
        if self.pid is None:
            log = (self.folder / "log").read_text(errors="replace")
            raise RuntimeError(f"{self.name} ended while it was starting:\n{log}")
        return self.ready()

    def _wait_until(self, predicate: Callable[[], bool], what: str) -> None:
        give_up = time.monotonic() + PATIENCE
        while not predicate():
            if time.monotonic() > give_up:
                raise RuntimeError(f"{self.name} did not {what} within {PATIENCE:g} s; see {self.folder}/log")
            time.sleep(0.01)

    # Another user than root

    def run(self, *command: str) -> None:
        """Run a program of the server's, as its user."""
        result = subprocess.run(
            command,
            cwd=self.folder,
            capture_output=True,
            text=True,
            env=self.environment(),
            **self._as_user(),
        )
        if result.returncode:
            raise RuntimeError(f"{command[0]} failed:\n{result.stdout}{result.stderr}")

    def _as_user(self) -> dict[str, Any]:
        entry = self._entry()
        if entry is None:
            return {}
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": ()}

    def _hand_over(self, path: Path) -> None:
        path.chmod(0o700)
        entry = self._entry()
        if entry is not None:
            os.chown(path, entry.pw_uid, entry.pw_gid)

    def _entry(self) -> pwd.struct_passwd | None:
        user = self.user()
        return None if user is None or os.getuid() != 0 else pwd.getpwnam(user)


def _is_zombie(pid: int) -> bool:
    """It has ended, and who started it is gone, or does not look."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


class Postgres(Service):
    """PostgreSQL. `options`: settings of the server, as in `postgres -c name=value`."""

    name = "postgres"
    packages = ("postgresql",)
    usual_port = 25432
    stop_signal = signal.SIGINT  # ends sessions; SIGTERM would wait for them

    @classmethod
    def program(cls) -> str | None:
        """The newest; Debian keeps them off PATH, for there may be several."""
        found = sorted(
            Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4])
        )
        return str(found[-1]) if found else shutil.which("postgres")

    @classmethod
    def user(cls) -> str:
        """It refuses to run as root."""
        try:
            return pwd.getpwnam("postgres").pw_name
        except KeyError:
            return "nobody"

    def prepare(self) -> None:
        initdb = str(Path(self.check()).with_name("initdb"))
        self.run(
            *(initdb, "--pgdata", str(self.folder / "data"), "--username", "postgres", "--auth", "trust"),
            *("--encoding", "UTF8", "--no-locale", "--no-sync"),
        )

    def command(self) -> Sequence[str]:
        settings = (
            *("listen_addresses=127.0.0.1", f"port={self.port}", f"unix_socket_directories={self.folder}"),
            *("max_connections=200", *self.options),
        )
        options = [part for setting in settings for part in ("-c", setting)]
        return [self.check(), "-D", str(self.folder / "data"), *options]

    def url(self) -> str:
        return f"postgresql://postgres@{HOST}:{self.port}/postgres"

    def ready(self) -> bool:
        """Its port answers a while before it takes sessions."""
        if not super().ready():
            return False
        pg_isready = str(Path(self.check()).with_name("pg_isready"))
        asked = subprocess.run([pg_isready, "-q", "-h", HOST, "-p", str(self.port)])
        return asked.returncode == 0


class Redis(Service):
    """Redis, without persistence: what it held is gone when it ends. `options`: as on its command line."""

    name = "redis"
    packages = ("redis-server",)
    usual_port = 26379

    @classmethod
    def program(cls) -> str | None:
        return shutil.which("redis-server")

    def prepare(self) -> None:
        """It makes what it needs."""

    def command(self) -> Sequence[str]:
        settings = ("--bind", HOST, "--port", str(self.port), "--dir", str(self.folder), "--save", "")
        return [self.check(), *settings, "--appendonly", "no", *self.options]

    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"


class RabbitMQ(Service):
    """RabbitMQ, one node. Erlang's own register of nodes, epmd, is private to it and goes with it.

    `options`: lines of its configuration, as in rabbitmq.conf.
    """

    name = "rabbitmq"
    packages = ("rabbitmq-server",)
    usual_port = 25672
    ports = 3  # with that of epmd, and of Erlang's own connections

    @classmethod
    def program(cls) -> str | None:
        """Not the one on PATH, which becomes another user and reads the machine's own settings."""
        found = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"))
        return str(found[-1]) if found else None

    def prepare(self) -> None:
        (self.folder / "rabbitmq.conf").write_text("\n".join([*self.options, ""]))

    def command(self) -> Sequence[str]:
        return [self.check()]

    def environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            **os.environ,
            "HOME": folder,  # where Erlang keeps its secret
            "ERL_EPMD_PORT": str(self.port + 1),
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_NODENAME": f"segundo{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.port + 2),
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/logs",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": f"{folder}/erlang.pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/no-environment",
        }

    def url(self) -> str:
        return f"amqp://guest:guest@{HOST}:{self.port}//"

    def ready(self) -> bool:
        return "Server startup complete" in self._said() and super().ready()

    def start(self) -> Self:
        (self.folder / "log").unlink(missing_ok=True)  # what it said at its last start is not true any more
        return super().start()

    def _said(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def stop(self, number: signal.Signals | None = None) -> None:
        super().stop(number)
        epmd = shutil.which("epmd")
        if epmd is not None:
            subprocess.run([epmd, "-kill"], env=self.environment(), capture_output=True)

    def _send(self, pid: int, number: signal.Signals) -> None:
        """To the whole group: what we started is a shell script, and Erlang its child."""
        os.killpg(pid, number)


SERVICES: dict[str, type[Service]] = {service.name: service for service in (Postgres, Redis, RabbitMQ)}


def install(services: Sequence[type[Service]]) -> None:
    """Debian's packages of what is missing; they may start a server of their own, which is not ours."""
    packages = [name for service in services if service.program() is None for name in service.packages]
    if not packages:
        return
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        raise NotInstalled(
            f"servers are missing. On Debian or Ubuntu: sudo apt-get install {' '.join(packages)}"
        )
    print(f"installing {' '.join(packages)}", flush=True)
    # No server of the package is started, nor left running: each test has its own.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
        subprocess.run(["apt-get", *command], check=True, env=environment, stdout=subprocess.DEVNULL)


def main(verb: str, names: Sequence[str]) -> int:
    services = [SERVICES[name] for name in names or SERVICES]
    if verb == "install":
        install(services)
        return 0
    for kind in services:
        service = kind()
        if verb == "start" and service.pid is None:
            service.start()
        if verb == "stop":
            service.remove()
        state = "not running" if service.pid is None else f"{service.url()} (pid {service.pid})"
        print(f"{service.name}: {state}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ("install", "start", "stop", "status"):
        sys.exit(__doc__)
    try:
        sys.exit(main(sys.argv[1], sys.argv[2:]))
    except (NotInstalled, RuntimeError) as error:
        sys.exit(str(error))
