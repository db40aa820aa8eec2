"""`make upstream`: FastAPI's and Starlette's own tests of the installed versions, without and with Segundo.

Each suite runs three times: as upstream has it; where it uses background tasks, with our two classes imported
instead; and in apps that all have a `Segundo`. What passes there and not here is a failure, unless EXPECTED
names it.
"""

import argparse
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from importlib.metadata import version
from typing import NamedTuple

from tests.support import ROOT
from tests.upstream.sources import NotToBeHad, missing, sources, unpack
from tests.upstream.suites import Case, Outcomes, files, near, of_files, run_files, touching, worse

BUILD = ROOT / "build" / "upstream"


class Difference(NamedTuple):
    """What upstream's tests say and we do not, by design."""

    project: str
    text: str  # in the test's file and name
    why: str


AVOIDS = "in an app with a Segundo, a failing task does not stop the next"
OUTLIVES = "the scope below a mounted Segundo keeps what is taken out above once the request is over"
EXPECTED = (
    Difference("starlette", "test_multi_tasks_failure_avoids_next_execution", AVOIDS),
    Difference("fastapi", "tests/test_telemetry/test_background.py::test_background_task_failure", AVOIDS),
    Difference("fastapi", "test_exceptions.py::test_exclusion_applies_to_mounted_apps", OUTLIVES),
    Difference("", "trio", "Segundo runs on asyncio, and refuses to start on anything else"),
)


class Suite(NamedTuple):
    project: str
    stock: Outcomes
    imported: Outcomes  # with our classes
    everywhere: Outcomes  # with a Segundo in every app
    left_out: dict[str, set[str]]  # files, and what they need that is not installed

    def worse(self) -> list[Case]:
        found = worse(of_files(self.stock, files(self.imported)), self.imported)
        return sorted({*found, *worse(self.stock, self.everywhere)})

    def expected(self, test: Case) -> str | None:
        reasons = (why for project, text, why in EXPECTED if project in self.project and text in str(test))
        return next(reasons, None)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--workers", type=int, default=2, help="test processes")
    options.add_argument("-W", "--warnings", action="append", default=[], help="as pytest has it")
    options.add_argument("--near", action="store_true", help="only what is near to background tasks")
    options.add_argument("projects", nargs="*", default=["starlette", "fastapi"])
    given = options.parse_args()
    print(f"Python {sys.version.split()[0]}, " + ", ".join(map(_versioned, (*given.projects, "pydantic"))))
    try:
        suites = [examine(project, given) for project in given.projects]
    except NotToBeHad as reason:
        print(f"1 skipped: upstream's tests cannot be had: {reason}")
        return int(os.environ.get("CI") == "true")
    failures = sum(tell(suite) for suite in suites)
    different = sum(len(suite.worse()) for suite in suites)
    print(f"{different - failures} differ as expected; of the others:")
    print(f"{sum(len(suite.stock) for suite in suites) - different} passed, {failures} failed")
    return int(failures > 0)


def examine(project: str, given: argparse.Namespace) -> Suite:
    archive = sources(project, BUILD)
    here = BUILD / f"{project}-{version(project)}"
    shutil.rmtree(here, ignore_errors=True)
    stock, ours = (unpack(archive, here / name, ours=name == "ours") for name in ("stock", "ours"))
    every = sorted(str(file.relative_to(stock)) for file in (stock / "tests").rglob("test_*.py"))
    left_out = {file: missing(stock / file, stock) for file in (near(stock) if given.near else every)}
    wanted = [file for file, lacks in left_out.items() if not lacks]
    with_import = sorted({*touching(ours)} & {*wanted})
    # Starlette has no seam: there, a Segundo is met through our own classes.
    of_apps = ours if project == "starlette" else stock
    options = [f"-W{warning}" for warning in given.warnings]
    run = partial(run_files, options=options, workers=given.workers)
    return Suite(
        project,
        _announced(f"{project} as it is", run(stock, files=wanted)),
        _announced(f"{project} with the import changed", run(ours, files=with_import)),
        _announced(f"{project} with a Segundo in every app", run(of_apps, files=wanted, everywhere=True)),
        {file: lacks for file, lacks in left_out.items() if lacks},
    )


def _announced(name: str, outcomes: Outcomes) -> Outcomes:
    print(f"{name}: {counted(outcomes.values())}", flush=True)
    return outcomes


def counted(outcomes: Iterable[str]) -> str:
    counts = Counter(outcomes)
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))


def tell(suite: Suite) -> int:
    """Print the table of a suite, and each difference; how many are not expected."""
    found = suite.worse()
    shown = files(suite.imported) | {test.file for test in found}
    _table(suite, sorted(shown))
    for file, lacks in suite.left_out.items():
        print(f"not run: {file}, which needs {', '.join(sorted(lacks))}")
    failures = 0
    for test in found:
        why = suite.expected(test)
        failures += why is None
        print(f"differs{', as expected' if why else ''}: {test}{f': {why}' if why else ''}")
    return failures


def _table(suite: Suite, shown: Sequence[str]) -> None:
    rest = files(suite.stock) - set(shown)
    rows: list[tuple[str, ...]] = [("file", "as it is", "import changed", "a Segundo in every app")]
    for name, wanted in [*((file, {file}) for file in shown), (f"the other {len(rest)} files", rest)]:
        runs = (suite.stock, suite.imported, suite.everywhere)
        rows.append((name, *(_short(of_files(outcomes, wanted)) for outcomes in runs)))
    rows.append(("all", *(_short(outcomes) for outcomes in (suite.stock, suite.imported, suite.everywhere))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"\n{_versioned(suite.project)}: passed/failed/skipped")
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _short(outcomes: Outcomes) -> str:
    counts = Counter(outcomes.values())
    return "/".join(str(counts[outcome]) for outcome in ("passed", "failed", "skipped")) if counts else "-"


def _versioned(project: str) -> str:
    return f"{project} {version(project)}"


if __name__ == "__main__":
    sys.exit(main())
