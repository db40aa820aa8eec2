"""Our two classes do what Starlette's and FastAPI's do: of upstream's own tests, those nearest to that.

`make upstream` runs them all.
"""

from pathlib import Path

import pytest

from segundo.shape import NEWEST_KNOWN
from tests.upstream.newest import note
from tests.upstream.sources import NotToBeHad, missing, sources, unpack, with_ours
from tests.upstream.suites import NEAREST, Case, Outcomes, run, worse

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

pytestmark = pytest.mark.timeout(150)  # a download, and a whole run of pytest


def test_starlettes_tests_of_background_tasks_pass_with_the_import_changed(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    names = passed(STARLETTE, had("starlette", tmp_path, pytestconfig, ours=True), pytestconfig)
    assert set(STARLETTE["tests/test_background.py"]) <= names


def test_fastapis_tests_of_background_tasks_pass_with_the_import_changed(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    names = passed(FASTAPI, had("fastapi", tmp_path, pytestconfig, ours=True), pytestconfig)
    assert {"test", "test_background_tasks", "test_sync_background_tasks"} <= names


def test_fastapis_tests_of_what_the_seam_touches_pass_in_apps_that_all_have_a_segundo(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    folder = had("fastapi", tmp_path, pytestconfig, ours=False)
    touched = [file for glob in NEAREST for file in sorted(folder.glob(glob)) if not missing(file, folder)]
    options = (*warnings(pytestconfig), "-k", "not trio")  # Segundo needs asyncio
    outcomes = run(folder, *options, *map(str, touched), everywhere=True)
    assert len(outcomes) > 50
    assert set(outcomes.values()) == {"passed"}


def had(project: str, folder: Path, config: pytest.Config, *, ours: bool) -> Path:
    """Upstream's tests; without them there is nothing to run, and a skip says so."""
    assert config.cache is not None
    try:
        return unpack(sources(project, config.cache.mkdir("upstream")), folder, ours=ours)
    except NotToBeHad as reason:
        pytest.skip(f"upstream's tests cannot be had: {reason}")


def warnings(config: pytest.Config) -> list[str]:
    """What this run makes of warnings, for upstream's: old libraries warn about what newer ones mended."""
    return [f"-W{warning}" for warning in config.getoption("pythonwarnings") or ()]


def passed(wanted: dict[str, tuple[str, ...]], folder: Path, config: pytest.Config) -> set[str]:
    """Run the wanted tests that are there and whose helpers are installed; the names of those that passed."""
    there = {
        file: (folder / file).read_text()
        for file in wanted
        if (folder / file).exists() and not missing(folder / file, folder)
    }
    nodes = [f"{file}::{name}" for file, text in there.items() for name in wanted[file] if f"{name}(" in text]
    outcomes = run(folder, *warnings(config), *nodes)
    names = {test.name.partition("[")[0] for test, outcome in outcomes.items() if outcome == "passed"}
    assert names == {node.rpartition("::")[2] for node in nodes}
    return names


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


def test_a_newer_fastapi_than_the_newest_known_is_noted_with_what_to_change() -> None:
    assert "NOTE" not in note(NEWEST_KNOWN)
    assert 'NEWEST_KNOWN = "0.999.0"' in note("0.999.0")


def test_a_test_is_worse_that_fails_is_skipped_or_is_not_reached_where_upstreams_passes() -> None:
    passes, fails, skipped, gone = (Case("test_file.py", name) for name in ("a", "b", "c", "d"))
    stock: Outcomes = {passes: "passed", fails: "passed", skipped: "passed", gone: "skipped"}
    assert worse(stock, stock) == []
    assert worse(stock, {passes: "passed", fails: "failed", skipped: "skipped"}) == [fails, skipped, gone]


def test_what_fails_upstream_too_is_no_worse() -> None:
    stock: Outcomes = {Case("test_file.py", "a"): "failed", Case("test_file.py", "b"): "failed"}
    assert worse(stock, {Case("test_file.py", "a"): "passed"}) == []
