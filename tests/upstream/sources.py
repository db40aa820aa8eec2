"""Upstream's own tests of the installed version, fetched when they are run and never kept here, with
`BackgroundTask` and `BackgroundTasks` imported from Segundo instead."""

import ast
import subprocess
import sys
import tarfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

OURS = {"BackgroundTask", "BackgroundTasks"}
WANTED = (["tests"], ["docs"], ["docs_src"], ["scripts"], ["pyproject.toml"])
THEIRS = {"starlette.background", "fastapi.background", "fastapi"}


class NotToBeHad(Exception):
    """The registry cannot be reached, or has no sources of this version."""


def sources(project: str, cache: Path) -> Path:
    """The archive of the installed version's sources, out of `cache` or downloaded into it."""
    wanted = f"{project}-{version(project)}.tar.gz"
    if not (cache / wanted).exists():
        _download(project, cache)
    if not (cache / wanted).exists():
        raise NotToBeHad(f"pip brought no {wanted}")
    return cache / wanted


def _download(project: str, cache: Path) -> None:
    # Sources of the project, but wheels of what builds it: pip reads a source's metadata by building it.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", project]
    try:
        subprocess.run(
            [*command, "--dest", str(cache), f"{project}=={version(project)}"],
            capture_output=True,
            text=True,
            check=True,
            timeout=50,
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        raise NotToBeHad(f"pip could not download {project}: {reason}") from error


def unpack(archive: Path, into: Path, *, ours: bool) -> Path:
    """The tests and what they need, but not the package, which is the installed one; their directory.

    `ours`: with the imports of the two classes changed, and nothing else.
    """
    with tarfile.open(archive) as tar:
        root = tar.getnames()[0].partition("/")[0]
        tar.extractall(
            into, [member for member in tar if member.name.split("/")[1:2] in WANTED], filter="data"
        )
    for file in (into / root).rglob("*.py") if ours else ():
        file.write_text(with_ours(file.read_text(encoding="utf-8")), encoding="utf-8")
    return into / root


def with_ours(source: str) -> str:
    """`source` with our two classes in place of upstream's, wherever it imports them."""
    if not any(name in source for name in OURS):
        return source
    lines = source.splitlines()
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    for node in sorted(imports, key=lambda node: node.lineno, reverse=True):
        if node.module in THEIRS and OURS & {alias.name for alias in node.names}:
            lines[node.lineno - 1 : node.end_lineno] = _changed(node)
    return "\n".join(lines) + "\n"


def missing(file: Path, root: Path) -> set[str]:
    """What a test module imports, itself or through upstream's own helpers, that is not installed."""
    found: set[str] = set()
    for name in _imported(file, root):
        own = root.joinpath(*name.split(".")).with_suffix(".py")
        if own.exists():
            found |= missing(own, root)
        elif not root.joinpath(*name.split(".")).is_dir() and find_spec(name.partition(".")[0]) is None:
            found.add(name)
    return found


def _imported(file: Path, root: Path) -> set[str]:
    package = file.relative_to(root).parts[:-1]
    names: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:  # what stands at the top only
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            near = package[: len(package) - node.level + 1] if node.level else ()
            names.add(".".join((*near, *(node.module or "").split("."))).rstrip("."))
    return names


def _changed(node: ast.ImportFrom) -> list[str]:
    ours = [ast.unparse(alias) for alias in node.names if alias.name in OURS]
    rest = [ast.unparse(alias) for alias in node.names if alias.name not in OURS]
    kept = [f"from {node.module} import {', '.join(rest)}"] if rest else []
    return [" " * node.col_offset + line for line in (*kept, f"from segundo import {', '.join(ours)}")]
