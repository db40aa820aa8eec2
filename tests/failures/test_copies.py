"""Copies of a busy app's files, taken while all its processes stand still: what a kill then would leave."""

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random, SystemRandom

import httpx
import pytest

from segundo.record import State
from tests.failures.story import check_file
from tests.support import ROOT, Server, wait_until

CLIENTS = 4
FEW, MANY = 12, 300 if os.environ.get("SOAK") == "long" else 40


class Load:
    """Clients that ask without a pause, and the ids of the calls that they were answered for."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(CLIENTS)]
        self.acknowledged: list[str] = []
        self.errors: list[str] = []

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, client: int) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as session:
            number = 0
            while not self._over.is_set():
                number += 1
                answer = session.post(f"/calls/{client}-{number}")
                if answer.is_success:
                    self.acknowledged += answer.json()
                else:
                    self.errors.append(answer.text)


def copy(ledger: Path, folder: Path, *, with_shm: bool) -> Path:
    folder.mkdir()
    for suffix in ("", "-wal", "-shm") if with_shm else ("", "-wal"):
        shutil.copy(f"{ledger}{suffix}", folder)
    return folder / ledger.name


@contextmanager
def standing_still(server: Server) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


def check_that_it_follows(earlier: dict[str, sqlite3.Row], later: dict[str, sqlite3.Row]) -> None:
    """What a later copy says of a record may follow what the earlier said."""
    for id, before in earlier.items():
        after = later[id]
        for counter in ("claim", "failures", "crashes"):
            assert before[counter] <= after[counter], (dict(before), dict(after))
        if State(before["state"]).terminal:
            assert dict(before) == dict(after), "a record changed after its end"


def copies(folder: Path, workers: int, number: int, seed: int) -> None:
    taken = list(take(folder, workers, number, Random(seed)))
    earlier: dict[str, sqlite3.Row] = {}
    for ledger, promised in taken:
        rows = check_file(ledger, promised)
        check_that_it_follows(earlier, rows)
        earlier = rows
    states = {row["state"] for row in earlier.values()}
    assert "succeeded" in states, "it was not busy"


def take(folder: Path, workers: int, number: int, chance: Random) -> Iterator[tuple[Path, list[str]]]:
    """So many copies of a busy ledger, and the ids that had been answered before each."""
    ledger = folder / "ledger.db"
    environment = {"PYTHONPATH": str(ROOT), "SEGUNDO_LEDGER": str(ledger)}
    options = ("--workers", str(workers)) if workers > 1 else ()
    server = Server("tests.failures.app:app", cwd=folder, env=environment, options=options)
    with server, Load(server.url) as load:
        for copied in range(number):
            enough = len(load.acknowledged) + chance.randrange(100)
            wait_until(lambda: len(load.acknowledged) > enough, 30, every=0.001)  # noqa: B023  (called at once)
            with standing_still(server):
                promised = list(load.acknowledged)
                yield copy(ledger, folder / f"copy-{copied}", with_shm=chance.random() < 0.5), promised
    assert not load.errors, load.errors[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_copy_is_whole_and_holds_what_was_answered(workers: int, own_directory: Path) -> None:
    seed = SystemRandom().randrange(10**6)
    print("seed", seed)
    copies(own_directory, workers, FEW, seed)


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 4])
def test_each_of_many_copies_is_whole_and_holds_what_was_answered(workers: int, own_directory: Path) -> None:
    seed = SystemRandom().randrange(10**6)
    print("seed", seed)
    copies(own_directory, workers, MANY, seed)
