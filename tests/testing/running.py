"""Runs pytest as a user does: in a folder of its own, with the plugin that comes with Segundo."""

import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

# The Starlette of the oldest FastAPI says so to the newest AnyIO.
OLD_STARLETTE = "ignore:The anyio.abc.BlockingPortal alias is deprecated:DeprecationWarning"
USERS = Path(__file__).with_name("users")  # what users might write; copied to where it is run


class Ran(NamedTuple):
    """The outcome of each test by its name, and all that pytest printed."""

    outcomes: Mapping[str, str]
    printed: str

    def failed(self) -> list[str]:
        return sorted(name for name, outcome in self.outcomes.items() if outcome not in ("passed", "xfail"))


def plugin() -> list[str]:
    """How our plugin is loaded where this environment was made before it had one."""
    return [] if entry_points(group="pytest11", name="segundo") else ["-p", "_segundo_pytest"]


def written(folder: Path, **files: str) -> Path:
    for name, code in files.items():
        (folder / f"{name}.py").write_text(code)
    return folder


def users(folder: Path, *names: str) -> Path:
    """Copies of these files of `users`, by the names that pytest collects."""
    return written(folder, **{f"test_{name}": (USERS / f"{name}.py").read_text() for name in names})


def run_pytest(folder: Path, *options: str, loaded: bool = True, asyncio: str = "") -> Ran:
    """Run it, each warning an error; `loaded`: with our plugin, as it is where nobody turns it off;
    `asyncio`: with pytest-asyncio, in this mode."""
    report = folder / "report.xml"
    plugins = plugin() if loaded else ["-p", "no:segundo"]
    if asyncio:
        plugins += ["-o", f"asyncio_mode={asyncio}", "-o", "asyncio_default_fixture_loop_scope=function"]
    else:
        plugins += ["-p", "no:asyncio"]
    given = (
        "-q",
        "-W",
        "error",
        "-W",
        OLD_STARLETTE,
        "-p",
        "no:cacheprovider",
        *plugins,
        f"--junitxml={report}",
        *options,
    )
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *given],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    printed = ran.stdout + ran.stderr
    assert report.exists(), printed
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return Ran({case.attrib["name"]: _outcome(case) for case in cases}, printed)


def _outcome(case: ElementTree.Element) -> str:
    for kind in ("failure", "error", "skipped"):
        if (found := case.find(kind)) is not None:
            return "xfail" if found.attrib.get("type") == "pytest.xfail" else kind
    return "passed"
