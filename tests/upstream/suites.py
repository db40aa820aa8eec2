"""Whole runs of upstream's tests: as upstream has them, with our imports, in apps that have a `Segundo`."""

import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from tests.upstream.sources import OURS

OUTPUT = "pytest.out"  # in upstream's folder: what pytest printed
PLUGIN = "everywhere"  # beside this file; put into upstream's folder to be found there
WORSE = ("passed", "skipped", "failed")  # what counts where a test reports twice: from left to right


# Of FastAPI's tests, those of what a request's exit stacks and dependencies promise.
NEAREST = (
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
# More of them; and of Starlette's, whom a response passes.
NEAR = (
    *NEAREST,
    "tests/test_dependency_concurrency.py",
    "tests/test_dependency_contextvars.py",
    "tests/test_tutorial/test_dependencies/test_*.py",
    "tests/middleware/test_*.py",
    "tests/test_responses.py",
)

ALONE = "tests/test_tutorial/test_background_tasks/"  # these write the same file, and read it


class Case(NamedTuple):
    """One case of one test, where it stands in its file."""

    file: str
    name: str

    def __str__(self) -> str:
        return f"{self.file}::{self.name}"


Outcomes = Mapping[Case, str]


class Broken(Exception):
    """A run that told no outcomes."""


def run_files(
    folder: Path, options: Iterable[str], files: Iterable[str], *, everywhere: bool = False, workers: int
) -> Outcomes:
    """Run these files by several workers, but for those that must not run beside each other."""
    found: dict[Case, str] = {}
    for alone in (False, True):
        if chosen := [file for file in files if file.startswith(ALONE) == alone]:
            with_workers = 0 if alone else workers
            found |= run(folder, *options, *chosen, everywhere=everywhere, workers=with_workers)
    return found


def run(folder: Path, *arguments: str, everywhere: bool = False, workers: int = 0) -> Outcomes:
    """Run pytest in upstream's folder, by upstream's own settings; what became of each test."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    options = [
        "-q",
        "--tb=short",
        "--disable-warnings",
        "-p",
        "no:randomly",
        "-p",
        "no:asyncio",
        "-p",
        "no:cacheprovider",
        "-o",
        "junit_family=xunit1",
    ]
    options += [f"--junitxml={report}", "--continue-on-collection-errors", f"--numprocesses={workers}"]
    options += ["--timeout=60"]
    if everywhere:
        source = Path(__file__).with_name(f"{PLUGIN}.py")
        (folder / source.name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
        options += ["-p", PLUGIN]
    with (folder / OUTPUT).open("w", encoding="utf-8") as log:
        command = [sys.executable, "-m", "pytest", *options, *arguments]
        subprocess.run(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=environment())
    if not report.exists():
        raise Broken((folder / OUTPUT).read_text(encoding="utf-8")[-5000:])
    return read(report)


def environment() -> dict[str, str]:
    """Ours, less what would colour upstream's own output or make its tests think of CI."""
    left_out = ("CI", "PYTEST_ADDOPTS", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if name not in left_out}


def read(report: Path) -> Outcomes:
    found: dict[Case, str] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        test = _named(case.attrib)
        found[test] = max(found.get(test, "passed"), _outcome(case), key=WORSE.index)
    return found


def _named(case: Mapping[str, str]) -> Case:
    file = case.get("file") or case["name"].replace(".", "/") + ".py"  # a file that cannot be collected
    inside = case.get("classname", "").removeprefix(file.removesuffix(".py").replace("/", ".")).strip(".")
    return Case(file, f"{inside}::{case['name']}" if inside else case["name"])


def _outcome(case: ElementTree.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "passed" if case.find("skipped") is None else "skipped"


def worse(stock: Outcomes, ours: Outcomes) -> list[Case]:
    """The tests whose outcome is worse than upstream's own, or which were not reached."""
    return [test for test, outcome in stock.items() if _rank(ours.get(test, "failed")) > _rank(outcome)]


def _rank(outcome: str) -> int:
    return WORSE.index(outcome)


def of_files(outcomes: Outcomes, wanted: Collection[str]) -> Outcomes:
    return {test: outcome for test, outcome in outcomes.items() if test.file in wanted}


def files(outcomes: Outcomes) -> set[str]:
    return {test.file for test in outcomes}


def near(folder: Path) -> list[str]:
    """The test files of NEAR, and those of background tasks."""
    globbed = {str(file.relative_to(folder)) for glob in NEAR for file in folder.glob(glob)}
    return sorted({*globbed, *touching(folder)})


def touching(folder: Path) -> list[str]:
    """The test files that use our two classes, themselves or in the examples that they try."""
    return sorted(
        str(file.relative_to(folder))
        for file in (folder / "tests").rglob("test_*.py")
        if _mentions([file, *_examples(file, folder)])
    )


def _examples(file: Path, folder: Path) -> Iterable[Path]:
    """Of `tests/test_tutorial/test_NAME/…`, what is in `docs_src/NAME`."""
    if file.parent.parent.name != "test_tutorial":
        return ()
    return (folder / "docs_src" / file.parent.name.removeprefix("test_")).rglob("*.py")


def _mentions(sources: Iterable[Path]) -> bool:
    return any(name in source.read_text(encoding="utf-8") for source in sources for name in OURS)
