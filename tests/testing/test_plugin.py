"""The plugin itself: what it costs who does not use it, and where it ends."""

import sys
from pathlib import Path

import pytest

import _segundo_pytest
from segundo.runtime import of_tests
from tests.testing.running import run_pytest, written

pytestmark = pytest.mark.timeout(180)  # whole runs of pytest

UNUSED = """
import sys

def test_nothing_is_imported_for_those_who_do_not_use_it():
    assert "_segundo_pytest" in sys.modules
    assert not {"segundo", "fastapi", "starlette", "pydantic", "sqlite3", "asyncio"} & sys.modules.keys()
"""
NESTED = """
pytest_plugins = ["pytester"]
INNER = '''
import segundo
from fastapi import FastAPI
from fastapi.testclient import TestClient

def test_inner(tasks):
    app = FastAPI()
    segundo.Segundo(app)
    with TestClient(app):
        assert app.state.segundo.ledger.path.parent.name.startswith("segundo-")
'''

def test_pytest_within_pytest(pytester, tasks):
    pytester.makepyfile(INNER)
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
    assert tasks.calls == ()
"""


def test_a_run_of_pytest_without_segundo_imports_nothing_of_it(tmp_path: Path) -> None:
    ran = run_pytest(written(tmp_path, test_unused=UNUSED), "-p", "no:anyio")
    assert ran.failed() == [], ran.printed


def test_pytest_can_run_within_pytest(tmp_path: Path) -> None:
    ran = run_pytest(written(tmp_path, test_nested=NESTED))
    assert ran.failed() == [], ran.printed


def test_where_no_tests_run_there_is_no_test_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_segundo_pytest", _segundo_pytest)
    assert of_tests() is None
    monkeypatch.delitem(sys.modules, "_segundo_pytest")
    assert of_tests() is None
