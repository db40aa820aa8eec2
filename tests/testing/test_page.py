"""The page on testing: each example runs as a test, in whatever way pytest is started."""

import re
from pathlib import Path
from typing import get_args

import pytest

import segundo.testing
from segundo.testing.faults import Point
from tests.support import ROOT
from tests.testing.running import run_pytest, written
from tests.transcript import blocks

PAGE = ROOT / "docs" / "testing.md"

pytestmark = pytest.mark.timeout(180)  # whole runs of pytest


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The files of the page, where a reader has saved them."""
    code = [content for language, content in blocks(PAGE) if language == "python"]
    files = [re.fullmatch(r"# (\w+)\.py\n(.*)", each, re.DOTALL) for each in code]
    return written(tmp_path, **{file[1]: file[2] for file in files if file is not None})


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=" ".join)
def test_every_example_of_the_page_passes_as_a_test(project: Path, options: tuple[str, ...]) -> None:
    ran = run_pytest(project, *options)
    assert ran.failed() == [], ran.printed
    assert len(ran.outcomes) > 12
    assert not (project / "segundo.db").exists()


def test_without_the_plugin_the_fixtures_are_not_there(project: Path) -> None:
    ran = run_pytest(project, "test_called.py", loaded=False)
    assert "fixture 'tasks' not found" in ran.printed


def test_the_page_names_every_fault() -> None:
    _, _, table = PAGE.read_text().partition("## When things go wrong\n")
    table = table.partition("```")[0]
    assert tuple(re.findall(r"^\| `([\w ]+)` \|", table, re.MULTILINE)) == get_args(Point)


def test_the_api_page_shows_every_name_of_the_testing_module_once_and_no_other() -> None:
    shown = re.findall(r"^::: segundo\.testing\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert sorted(shown) == sorted(segundo.testing.__all__)
    assert all(getattr(segundo.testing, name).__doc__ for name in shown)
