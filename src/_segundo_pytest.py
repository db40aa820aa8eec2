"""The pytest plugin: what every pytest run loads where Segundo is installed.

It stands beside the package, whose import brings all of FastAPI: that is left to the tests that use it.
"""

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from segundo.runtime import Make
    from segundo.testing import LedgerClock, LedgerFaults, Recorder
    from segundo.testing.session import Session


class Lazy:
    """The session of one run of pytest, made when an app or a fixture first asks for it."""

    def __init__(self) -> None:
        self.made: Session | None = None

    def __call__(self) -> "Session":
        if self.made is None:
            from segundo.testing.session import Session

            self.made = Session()
        return self.made


_runs: list[Lazy] = []  # one within another where a plugin's own tests run pytest in process
_KEY = pytest.StashKey[Lazy]()


def maker() -> "Make | None":
    """What makes the runtimes of this process; None while no tests are run."""
    return _runs[-1]().runtime if _runs else None


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_KEY] = Lazy()
    _runs.append(config.stash[_KEY])


def pytest_unconfigure(config: pytest.Config) -> None:
    _runs.remove(config.stash[_KEY])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    result = yield
    if (session := item.config.stash[_KEY].made) is not None:
        session.raise_unseen()
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    try:
        return (yield)
    finally:
        if (session := item.config.stash[_KEY].made) is not None:
            session.end_test()


@pytest.fixture
def tasks(pytestconfig: pytest.Config) -> "Recorder":
    """The background tasks that this test's requests add: what was called, what failed; hold and drain."""
    from segundo.testing import Recorder

    return Recorder(pytestconfig.stash[_KEY]())


@pytest.fixture
def ledger_clock(pytestconfig: pytest.Config) -> "LedgerClock":
    """The clock of every ledger in this test: move it, and what is delayed is due."""
    from segundo.testing import LedgerClock

    return LedgerClock(pytestconfig.stash[_KEY]())


@pytest.fixture
def ledger_faults(pytestconfig: pytest.Config) -> "LedgerFaults":
    """Faults of the ledger and of the process that runs tasks, by name."""
    from segundo.testing import LedgerFaults

    return LedgerFaults(pytestconfig.stash[_KEY]())


@pytest.fixture
def real_ledger(pytestconfig: pytest.Config, tmp_path: Path) -> Path:
    """No test mode: apps that start in this test have real ledger files, in the folder that this is, and an
    executor that runs their records beside the requests, as on a server.

    The ledger is a file also where the app has one on PostgreSQL: no test writes to a server that settings
    name. For that, start the app in a process of its own."""
    pytestconfig.stash[_KEY]().be_real(tmp_path)
    return tmp_path
