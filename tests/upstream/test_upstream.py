"""Without a `Segundo`, our two classes do what Starlette's and FastAPI's do: upstream's own tests say so."""

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.upstream.sources import NotToBeHad, missing, sources, unpack, with_ours

# Of each file, the tests that exercise background tasks. What an older version does not have yet is left out.
STARLETTE = {
    "tests/test_background.py": (
        "test_async_task",
        "test_sync_task",
        "test_multiple_tasks",
        "test_multi_tasks_failure_avoids_next_execution",
    ),
    "tests/test_responses.py": (
        "test_streaming_response",
        "test_file_response",
        "test_file_response_stops_on_disconnect",
        "test_file_response_closes_on_cancellation",
        "test_streaming_response_on_client_disconnects",
        "test_streaming_response_runs_background_on_websocket_scope",
    ),
    "tests/middleware/test_base.py": (
        "test_run_background_tasks_even_if_client_disconnects",
        "test_run_background_tasks_raise_exceptions",
        "test_do_not_block_on_background_tasks",
        "test_run_context_manager_exit_even_if_client_disconnects",
        "test_multiple_middlewares_stacked_client_disconnected",
        "test_background_task_runs_after_response_sent_with_middleware",
    ),
    "tests/middleware/test_errors.py": ("test_background_task",),
    "tests/test_testclient.py": (
        "test_closing_completed_response_waits_for_background_task",
        "test_closing_response_inside_unrelated_except_waits_for_background_task",
        "test_closing_client_cancels_unclosed_response",
    ),
}
FASTAPI = {
    "tests/test_tutorial/test_background_tasks/test_tutorial001.py": ("test",),
    "tests/test_tutorial/test_background_tasks/test_tutorial002.py": ("test",),
    "tests/test_dependency_contextmanager.py": ("test_background_tasks", "test_sync_background_tasks"),
    "tests/test_response_dependency.py": ("test_background_tasks_with_depends_annotated",),
    "tests/test_dependency_concurrency.py": (
        "test_capacity_follows_scope_through_streaming_and_background_work",
    ),
    "tests/test_async_dependency_cleanup.py": ("test_response_remains_cancellable_after_function_cleanup",),
    "tests/test_telemetry/test_background.py": (
        "test_background_task_spans",
        "test_background_task_objects",
        "test_background_task_failure",
        "test_background_task_settings",
        "test_background_tasks_outside_request",
    ),
}

# Of FastAPI's tests, those of what a request's exit stacks and dependencies promise.
TOUCHED = (
    "tests/test_async_dependency_cleanup.py",
    "tests/test_dependency_after_yield*.py",
    "tests/test_dependency_contextmanager.py",
    "tests/test_dependency_overrides.py",
    "tests/test_dependency_yield*.py",
    "tests/test_exception_handlers.py",
    "tests/test_response_dependency.py",
    "tests/test_router_events.py",
    "tests/test_ws_*.py",
    "tests/test_tutorial/test_background_tasks/test_*.py",
)

pytestmark = pytest.mark.timeout(150)  # a download, and a whole run of pytest


def test_starlettes_tests_of_background_tasks_pass_with_the_import_changed(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    passed = run(STARLETTE, had("starlette", tmp_path, pytestconfig))
    assert set(STARLETTE["tests/test_background.py"]) <= passed


def test_fastapis_tests_of_background_tasks_pass_with_the_import_changed(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    passed = run(FASTAPI, had("fastapi", tmp_path, pytestconfig))
    assert {"test", "test_background_tasks", "test_sync_background_tasks"} <= passed


def test_fastapis_tests_of_what_the_seam_touches_pass_in_apps_that_all_have_a_segundo(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    folder = had("fastapi", tmp_path, pytestconfig)
    shutil.copy(Path(__file__).with_name("everywhere.py"), folder)
    files = [file for glob in TOUCHED for file in sorted(folder.glob(glob)) if not missing(file, folder)]
    cases = outcomes(folder, "-p", "everywhere", "-k", "not trio", *map(str, files))  # Segundo needs asyncio
    assert len(cases) > 50
    assert set(cases.values()) == {"passed"}


def had(project: str, folder: Path, config: pytest.Config) -> Path:
    """Upstream's tests; without them there is nothing to run, and a skip says so."""
    assert config.cache is not None
    try:
        return unpack(sources(project, config.cache.mkdir("upstream")), folder)
    except NotToBeHad as reason:
        pytest.skip(f"upstream's tests cannot be had: {reason}")


def run(wanted: dict[str, tuple[str, ...]], folder: Path) -> set[str]:
    """Run the wanted tests that are there and whose helpers are installed; the names of those that passed."""
    there = {
        file: (folder / file).read_text()
        for file in wanted
        if (folder / file).exists() and not missing(folder / file, folder)
    }
    nodes = [f"{file}::{name}" for file, text in there.items() for name in wanted[file] if f"{name}(" in text]
    cases = outcomes(folder, *nodes)
    passed = {name.partition("[")[0] for (_, name), outcome in cases.items() if outcome == "passed"}
    assert passed == {node.rpartition("::")[2] for node in nodes}
    return passed


def outcomes(folder: Path, *arguments: str) -> dict[tuple[str, str], str]:
    """Run pytest in upstream's directory; each test's file and name, and whether it passed or was skipped."""
    report = folder / "report.xml"
    (folder / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    options = ("-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--tb=short", f"--junitxml={report}")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments], cwd=folder, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return {
        (case.attrib["classname"], case.attrib["name"]): "passed"
        if case.find("skipped") is None
        else "skipped"
        for case in ElementTree.parse(report).getroot().iter("testcase")
    }


def test_only_the_imports_of_the_two_classes_are_changed() -> None:
    source = (
        "from fastapi import (\n    BackgroundTasks,\n    FastAPI,\n)\n"
        "from starlette.background import BackgroundTask as Task\nfrom fastapi.responses import Response\n"
    )
    assert with_ours(source).splitlines() == [
        "from fastapi import FastAPI",
        "from segundo import BackgroundTasks",
        "from segundo import BackgroundTask as Task",
        "from fastapi.responses import Response",
    ]
