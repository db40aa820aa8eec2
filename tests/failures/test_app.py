"""A real app whose ledger fails under it: its clients get 503, nothing that ran is lost, and it goes on."""

import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from segundo.record import TERMINAL
from tests.failures.story import check_file
from tests.support import ROOT, Server, ledger_rows, wait_until

PATIENCE = 0.5  # seconds that a request waits for its records


class App:
    """The app of `app.py`, and what its clients were told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = folder / "ledger.db"
        self.accepted: list[str] = []
        self.refused: list[str] = []
        environment = {
            "PYTHONPATH": str(ROOT),
            "SEGUNDO_LEDGER": str(self.ledger),
            "SEGUNDO_RECORD_TIMEOUT": str(PATIENCE),
        }
        self.server = Server("tests.failures.app:app", cwd=folder, env=environment)
        self._numbers = iter(range(1000))

    def ask(self, path: str = "calls") -> bool:
        """One request with calls; whether it was accepted. What is no 503 is no refusal."""
        tag = f"{path}-{next(self._numbers)}"
        answer = httpx.post(f"{self.server.url}/{path}/{tag}", timeout=20)
        if answer.status_code == 503:
            assert answer.headers["retry-after"]
            self.refused.append(tag)
            return False
        answer.raise_for_status()
        self.accepted.append(tag)
        return True

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().split() if path.exists() else []

    def rows(self) -> list[dict[str, Any]]:
        return ledger_rows(self.ledger)

    def all_ended(self) -> bool:
        return all(row["state"] in TERMINAL for row in self.rows())


Calamity = Callable[[App], AbstractContextManager[None]]


def without(suffix: str) -> Calamity:
    @contextmanager
    def moved_away(app: App) -> Iterator[None]:
        file, spare = Path(f"{app.ledger}{suffix}"), app.folder / "spare"
        file.rename(spare)
        yield
        spare.rename(file)

    return moved_away


@contextmanager
def full_disk(app: App) -> Iterator[None]:
    """The kernel lets the process write nothing behind the first bytes of any file."""
    if not hasattr(resource, "prlimit"):
        pytest.skip("only Linux lets one process limit another (prlimit)")
    before = resource.prlimit(app.server.pid, resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    yield
    resource.prlimit(app.server.pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def locked(app: App) -> Iterator[None]:
    with closing(sqlite3.connect(app.ledger, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        yield


CALAMITIES: dict[str, Calamity] = {
    "its file is gone": without(""),
    "its WAL is gone": without("-wal"),
    "its lock file is gone": without("-lock"),
    "its disk is full": full_disk,
    "a stranger holds its lock": locked,
}


@pytest.mark.parametrize("befall", CALAMITIES.values(), ids=CALAMITIES)
def test_an_app_refuses_while_its_ledger_fails_and_then_goes_on(
    befall: Calamity, own_directory: Path
) -> None:
    app = App(own_directory)
    with app.server:
        wait_until(app.ask)
        wait_until(lambda: app.ask("slow"))
        slow = app.accepted[-1]
        wait_until(lambda: slow in app.lines("started"))
        with befall(app):
            assert not any([app.ask(), app.ask(), app.ask("slow")])
            assert httpx.get(f"{app.server.url}/alive").is_success
            (app.folder / "go").touch()  # what ran ends meanwhile, and its outcome has to wait
            wait_until(lambda: slow in app.lines("ran"))
            assert not app.ask()
        wait_until(app.ask)
        wait_until(app.all_ended)
        app.server.kill()
        app.server.start()
        wait_until(app.ask)
        wait_until(app.all_ended)
    rows = check_file(app.ledger)
    assert len(rows) == sum(1 if tag.startswith("slow") else 3 for tag in app.accepted)
    assert {row["state"] for row in rows.values()} == {"succeeded"}
    assert sorted(app.lines("ran")) == sorted(
        tag for tag in app.accepted for _ in range(1 if tag.startswith("slow") else 3)
    )


def test_an_app_stops_though_a_stranger_holds_the_lock_of_its_ledger(own_directory: Path) -> None:
    app = App(own_directory)
    with app.server:
        wait_until(app.ask)
        wait_until(app.all_ended)
        with locked(app):
            app.server.terminate()
            app.server.wait(30)
        app.server.start()
        wait_until(app.ask)
        wait_until(app.all_ended)
    assert len(check_file(app.ledger)) == 3 * len(app.accepted)
