"""The servers of the benchmarks with a broker: PostgreSQL, and RabbitMQ or Redis, each made for the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from bench import machine
from bench.errors import BenchError
from bench.server import ROOT, STOPS_WITHIN
from scripts.ports import free_port
from scripts.services import NotInstalled, Postgres, RabbitMQ, Redis, Service

BROKERS: dict[str, type[Redis] | type[RabbitMQ]] = {"redis": Redis, "rabbitmq": RabbitMQ}
QUEUE = "default"


@contextmanager
def serving(service: Service) -> Iterator[Service]:
    """Started for the run; what it held goes with it."""
    try:
        service.start()
        yield service
    except NotInstalled as missing:
        raise BenchError(str(missing)) from missing
    finally:
        service.remove()


def make_broker(kind: str, directory: Path) -> Service:
    return BROKERS[kind](directory / kind, free_port(BROKERS[kind].ports))


def make_postgres(directory: Path) -> Service:
    """As it comes, commits on the disk; the figures are those of a server that was not tuned."""
    for folder in (directory, *directory.parents):
        if not folder.stat().st_mode & 0o001:
            raise BenchError(f"PostgreSQL's user cannot enter {folder}: name another directory by --dir")
    return Postgres(directory / "postgres", free_port())


def about(kind: str, directory: Path) -> str:
    """The versions of the servers."""
    commands = {
        "postgres": [Postgres.check(), "--version"],
        "redis": [Redis.check(), "--version"],
        "rabbitmq": ["dpkg-query", "-W", "-f", "RabbitMQ ${Version}", "rabbitmq-server"],
    }
    said = [
        subprocess.run(commands[name], capture_output=True, text=True, cwd=directory).stdout.strip()
        for name in ("postgres", kind)
    ]
    return ", ".join(said)


class Records:
    """The records of a ledger on a server, read and filled by SQL of its own: it does not check itself."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True, options="-c search_path=segundo")

    def close(self) -> None:
        self._connection.close()

    def value(self, query: str, *parameters: Any) -> Any:
        row = self._connection.execute(query.encode(), parameters).fetchone()
        return None if row is None else row[0]

    def count(self, where: str = "true") -> int:
        return int(self.value(f"SELECT count(*) FROM records WHERE {where}"))

    def states(self) -> dict[str, int]:
        rows = self._connection.execute("SELECT state, count(*) FROM records GROUP BY state")
        return dict(rows.fetchall())

    def clear(self) -> None:
        self._connection.execute("TRUNCATE records")

    def keep(self, count: int, where: str) -> None:
        """Delete all but so many of these."""
        some = f"SELECT id FROM records WHERE {where} ORDER BY id LIMIT %s"
        self._connection.execute(f"DELETE FROM records WHERE id NOT IN ({some})".encode(), (count,))

    def copies(self, count: int) -> None:
        """Add copies of the one record there is, queued and due, as if they had just been recorded."""
        columns = [column.name for column in self._described()]
        own = {
            "id": "lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')"
            " || encode(substr(sha256((n::text || random()::text)::bytea), 1, 12), 'hex')",
            "state": "'queued'", "owner": "NULL", "published_until": "NULL", "claim": "0",
            "started_at": "NULL", "finished_at": "NULL", "run_at": "created_at + n * 1e-6",
        }  # fmt: skip
        values = ", ".join(own.get(column, column) for column in columns)
        self._connection.execute(
            f"INSERT INTO records ({', '.join(columns)}) SELECT {values} FROM records, "
            "generate_series(1, %s) AS n WHERE records.id = (SELECT min(id) FROM records)".encode(),
            (count,),
        )
        self._connection.execute("VACUUM ANALYZE records")

    def _described(self) -> Any:
        return self._connection.execute("SELECT * FROM records LIMIT 0").description


class Worker:
    """`celery worker` in a process group of its own: ready inside, ended after it."""

    def __init__(self, options: list[str], directory: Path, environ: Mapping[str, str]) -> None:
        self._command = [
            *(sys.executable, "-m", "celery", "-A", "bench.celery_app:celery", "worker", "-Q", QUEUE),
            *("--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"),
            *options,
        ]
        self._directory = directory
        self._log = directory / "worker.log"
        self._environ = environ

    def __enter__(self) -> Worker:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._directory, env=dict(self._environ), stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            raise BenchError(f"the worker did not stop within {STOPS_WITHIN:g} s:\n{self.said()}") from None

    def said(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]

    def cpu_seconds(self) -> float:
        return machine.cpu_seconds_below(self._process.pid)

    def check(self) -> None:
        if self._process.poll() is not None:
            raise BenchError(f"the worker ended with {self._process.returncode}:\n{self.said()}")


def environ(side: str, broker: str, ledger: str, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "BENCH_SIDE": side,
        "SEGUNDO_BROKER": broker,
        "SEGUNDO_LEDGER": ledger,
        "PYTHONPATH": str(ROOT),
        **more,
    }
