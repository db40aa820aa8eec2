"""`add_task` and what surrounds it, as mypy and basedpyright see them in their strictest mode."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support import ROOT

SNIPPETS = Path(__file__).with_name("snippets")


def mypy() -> set[tuple[str, int]]:
    """The file and line of each error."""
    options = ("--strict", "--output=json", "--warn-unreachable")
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(SNIPPETS)], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    return {(Path(each["file"]).name, each["line"]) for each in found if each["severity"] == "error"}


def basedpyright() -> set[tuple[str, int]]:
    """The file and line of each error."""
    ran = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--outputjson", str(SNIPPETS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    found = json.loads(ran.stdout)["generalDiagnostics"]
    return {
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1)
        for each in found
        if each["severity"] == "error"
    }


CHECKERS = [
    pytest.param(
        checker, id=checker.__name__, marks=pytest.mark.skipif(not there, reason="it is not installed here")
    )
    for checker, there in ((mypy, find_spec("mypy")), (basedpyright, find_spec("basedpyright")))
]


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_type_checker_refuses_every_wrong_call_on_its_line_and_accepts_every_right_one(
    checker: Callable[[], set[tuple[str, int]]],
) -> None:
    marked = {
        (file.name, number)
        for file in SNIPPETS.glob("*.py")
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if line.endswith("# error")
    }
    assert len(marked) > 20
    assert checker() == marked
