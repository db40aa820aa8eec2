"""What the files of the project say of each other stays true."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import segundo
from tests.support import ROOT

SOURCES = sorted((ROOT / "src").rglob("*.py")) + sorted((ROOT / "src").rglob("*.sql"))
PROSE = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_api_page_shows_every_public_name_once_and_no_other() -> None:
    shown = re.findall(
        r"^::: segundo\.(?:task\.)?(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE
    )
    assert sorted(shown) == sorted(segundo.__all__)


def test_every_public_name_exists_and_says_what_it_is() -> None:
    undocumented = [name for name in segundo.__all__ if not getattr(segundo, name).__doc__]
    assert undocumented == []


def test_the_package_and_the_changelog_agree_on_the_newest_version() -> None:
    assert version("segundo") == PROJECT["version"]
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1:2] in ([], [PROJECT["version"]])


def test_the_extras_that_users_name_exist_and_all_is_the_sum_of_them() -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(extras) == {"postgres", "celery", "cli", "dashboard", "otel", "prometheus", "all"}
    (everything,) = extras["all"]
    assert set(re.findall(r"\w+", everything)) - {"segundo"} == set(extras) - {"all"}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_source_file_holds_one_idea_in_at_most_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", SOURCES + PROSE, ids=relative)
def test_a_thing_has_one_word(path: Path) -> None:
    assert re.findall(r"(?i).*(?<![a-z])jobs?(?![a-z]).*", path.read_text()) == []
