"""What users write, run as they run it: the files of `users`, which say what they expect."""

import shutil
from pathlib import Path

import pytest

from tests.testing.running import USERS, run_pytest, users

pytestmark = pytest.mark.timeout(180)  # whole runs of pytest


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    shutil.copy(USERS / "shop.py", tmp_path)
    return tmp_path


def test_each_of_their_tests_passes_but_those_that_fail_since_a_task_does(shop: Path) -> None:
    ran = run_pytest(users(shop, "clients", "recorder", "real", "lasting", "failing", "starlettes"))
    assert [name for name in ran.failed() if not name.startswith("test_fails_")] == [], ran.printed
    assert len(ran.failed()) == len([name for name in ran.outcomes if name.startswith("test_fails_")]) == 7
    assert len(ran.outcomes) > 45
    assert ran.printed.count("ArithmeticError: of itself") >= 5


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_pytest_asyncio_is_no_hindrance(shop: Path, mode: str) -> None:
    pytest.importorskip("pytest_asyncio")
    ran = run_pytest(users(shop, "asyncio_"), asyncio=mode)
    assert ran.failed() == [], ran.printed
    assert len(ran.outcomes) == 5
