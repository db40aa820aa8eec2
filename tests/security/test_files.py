"""Whoever makes a ledger's files, an app, a worker or a command: they are their owner's alone."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.ledgers import fill, queued
from tests.cli.terminal import Worker, segundo
from tests.support import ROOT, Server

PRIVATE = {f"segundo.db{suffix}": 0o600 for suffix in ("", "-lock", "-shm", "-wal")}


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """With which a file is readable by everybody, unless its maker says otherwise."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes() -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in Path().glob("segundo.db*")}


def test_the_files_that_an_app_and_a_worker_make_are_their_owners_alone(own_directory: Path) -> None:
    (own_directory / "main.py").write_text((ROOT / "tests" / "cli" / "app.py").read_text())
    with Server("main:app", cwd=own_directory):
        assert modes() == PRIVATE
    for file in Path().glob("segundo.db*"):
        file.unlink()
    with Worker("main:app"):
        assert modes() == PRIVATE


def test_the_files_that_commands_make_are_their_owners_alone() -> None:
    record = fill(queued)
    Path("segundo.db-lock").unlink()
    assert segundo("cancel", record.id).code == 0
    assert modes() == {"segundo.db": 0o600, "segundo.db-lock": 0o600}
