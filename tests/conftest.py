"""What holds for every test: async tests on asyncio, a directory of its own, no skip in CI."""

import os
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest
from hypothesis.database import DirectoryBasedExampleDatabase

from tests.postgres import new_url, schemas, url
from tests.support import ROOT

__all__ = ["new_url", "schemas", "url"]  # fixtures of every test

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

# No deadline: how long an example takes says something about the machine, not about the code.
hypothesis.settings.register_profile(
    "segundo",
    deadline=None,
    print_blob=True,
    database=DirectoryBasedExampleDatabase(ROOT / ".hypothesis" / "examples"),
)
hypothesis.settings.load_profile("segundo")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has an empty working directory and no settings from outside, so it meets nobody's ledger."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SEGUNDO_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What asks for a PostgreSQL server is run where there is to be one."""
    for item in items:
        if "schemas" in getattr(item, "fixturenames", ()):
            item.add_marker("postgres")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return fail_if_skipped_in_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return fail_if_skipped_in_ci((yield))


def fail_if_skipped_in_ci(report: Report) -> Report:
    """CI has everything that a test can need: there, what was skipped was not tested."""
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and in CI a skip is a failure: {report.longrepr}"
    return report
