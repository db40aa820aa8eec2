"""Without a `Segundo`, our two classes do what Starlette's and FastAPI's do: upstream's own tests say so."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.upstream.sources import NotToBeHad, sources, unpack, with_ours

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


def had(project: str, folder: Path, config: pytest.Config) -> Path:
    """Upstream's tests; without them there is nothing to run, and a skip says so."""
    assert config.cache is not None
    try:
        return unpack(sources(project, config.cache.mkdir("upstream")), folder)
    except NotToBeHad as reason:
        pytest.skip(f"upstream's tests cannot be had: {reason}")


def run(wanted: dict[str, tuple[str, ...]], folder: Path) -> set[str]:
    """Run the wanted tests that this version has; the names of those that passed."""
    there = {file: (folder / file).read_text() for file in wanted if (folder / file).exists()}
    nodes = [f"{file}::{name}" for file, text in there.items() for name in wanted[file] if f"{name}(" in text]
    report = folder / "report.xml"
    (folder / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    options = ("-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--tb=short", f"--junitxml={report}")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *nodes],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    cases = ElementTree.parse(report).getroot().iter("testcase")
    passed = {case.attrib["name"].partition("[")[0] for case in cases if case.find("skipped") is None}
    assert passed == {node.rpartition("::")[2] for node in nodes}, ran.stdout
    return passed


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
