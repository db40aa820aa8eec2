"""Makes what the documentation takes from the code: `python -m scripts.docs`.

The state table and diagram come from `segundo.record.TRANSITIONS`, the tree from the modules' own first
sentences, in the order of the layers in pyproject.toml. tests/test_docs.py fails while one of them is old.
"""

import ast
import re
import tomllib
from collections.abc import Iterator
from html import escape
from pathlib import Path

from segundo.record import TRANSITIONS, State, Transition

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "segundo"
PAGE = ROOT / "docs" / "architecture.md"
DIAGRAM = ROOT / "docs" / "states.svg"

# What a row of pyproject.toml's layers is called, by a module in it.
LAYERS = {
    "cli": "edge",
    "app": "web",
    "runtime": "runtime",
    "executors": "executors",
    "runner": "machinery",
    "ledger": "ledger",
    "record": "words",
}


def made() -> dict[Path, str]:
    """Each file that something is made for, as it should be."""
    page = _replaced(PAGE.read_text("utf-8"), "states", _state_table())
    return {PAGE: _replaced(page, "tree", _tree()), DIAGRAM: _diagram()}


def _replaced(page: str, name: str, content: str) -> str:
    begin, end = f"<!-- {name}: made by python -m scripts.docs -->", f"<!-- /{name} -->"
    before, begun, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise ValueError(f"{PAGE.name} has no place for {name}: {begin} … {end}")
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


# The states


def _state_table() -> str:
    head = ["| | from | to | who alone may | guard |", "|---|---|---|---|---|"]
    return "\n".join(head + [_state_row(row) for row in TRANSITIONS])


def _state_row(row: Transition) -> str:
    source, target = row.source or "–", row.target or "gone"
    by = ", ".join(f"`{verb}`" for verb in row.by.split(", "))
    return f"| {row.letter} | {source} | {target} | {by} | {row.guard} |"


# Where a state stands, and how the arrow between two of them goes: a path, and the middle of its letters.
PLACES = {
    State.WAITING: (170, 180),
    State.QUEUED: (370, 180),
    State.RUNNING: (570, 180),
    State.SUCCEEDED: (780, 70),
    State.FAILED: (780, 180),
    State.CANCELLED: (780, 330),
}
ARROWS: dict[tuple[State | None, State | None], tuple[str, int, int]] = {
    (None, State.WAITING): ("M46 180 H114", 78, 172),
    (None, State.QUEUED): ("M40 168 C80 96 290 96 345 160", 120, 114),
    (None, State.CANCELLED): ("M38 192 C70 400 480 392 724 342", 150, 352),
    (State.WAITING, State.QUEUED): ("M226 180 H314", 268, 172),
    (State.WAITING, State.WAITING): ("M150 198 C142 244 196 244 188 200", 169, 248),
    (State.QUEUED, State.QUEUED): ("M378 162 C370 118 424 118 412 160", 395, 114),
    (State.QUEUED, State.RUNNING): ("M426 180 H514", 468, 172),
    (State.WAITING, State.RUNNING): ("M185 162 C230 24 500 24 552 160", 368, 50),
    (State.RUNNING, State.QUEUED): ("M550 198 C520 238 430 238 392 200", 474, 222),
    (State.RUNNING, State.RUNNING): ("M568 162 C560 112 614 112 602 160", 586, 114),
    (State.RUNNING, State.SUCCEEDED): ("M626 168 L726 82", 664, 118),
    (State.RUNNING, State.FAILED): ("M626 180 H724", 674, 172),
    (State.RUNNING, State.CANCELLED): ("M618 198 L742 310", 694, 252),
    (State.WAITING, State.CANCELLED): ("M200 198 C270 320 560 344 724 334", 300, 314),
    (State.QUEUED, State.CANCELLED): ("M400 198 C450 280 600 312 724 324", 560, 284),
    (State.WAITING, None): ("M126 198 L106 232", 100, 248),
    (State.QUEUED, None): ("M336 198 L320 232", 316, 248),
    (State.SUCCEEDED, None): ("M836 70 H872", 854, 62),
    (State.FAILED, None): ("M836 180 H872", 854, 172),
    (State.CANCELLED, None): ("M836 330 H872", 854, 322),
}

STYLE = """
  svg { font: 15px system-ui, sans-serif }
  .page { fill: #fff; stroke: #ccc }
  .state { fill: #eef3fb; stroke: #38609c; stroke-width: 1.5 }
  .end { fill: #f3f3f3; stroke: #555 }
  .arrow { fill: none; stroke: #666; stroke-width: 1.3; marker-end: url(#head) }
  #head path, .start { fill: #666 }
  text { text-anchor: middle; fill: #111 }
  .halo, .letters { font-weight: 600; fill: #a03c00 }
  .halo { fill: none; stroke: #fff; stroke-width: 5; stroke-linejoin: round }
  .note { font-size: 12px; text-anchor: start; fill: #444 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #1c1f24; stroke: #444 }
    .state { fill: #24344d; stroke: #8fb3e8 }
    .end { fill: #2c2f34; stroke: #aaa }
    .arrow { stroke: #aaa }
    #head path, .start { fill: #aaa }
    text { fill: #eee }
    .letters { fill: #ffb27a }
    .halo { fill: none; stroke: #1c1f24 }
    .note { fill: #bbb }
  }"""


def _diagram() -> str:
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 420" role="img">',
            "<title>The states of a record; each arrow has the letters of its rows in the table</title>",
            f"<style>{STYLE}\n</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            'orient="auto"><path d="M0 0 L8 4 L0 8 Z"/></marker></defs>',
            '<rect class="page" x="0.5" y="0.5" width="899" height="419" rx="8"/>',
            '<circle class="start" cx="38" cy="180" r="7"/>',
            *_arrows(),
            *(_box(state, x, y) for state, (x, y) in PLACES.items()),
            '<text class="note" x="20" y="404">The dot: a call is recorded. An arrow to nowhere: '
            "the row is deleted.</text>",
            "</svg>",
            "",
        ]
    )


def _arrows() -> Iterator[str]:
    """One for each pair of states. KeyError for a pair that ARROWS does not know: draw it there."""
    letters: dict[tuple[State | None, State | None], list[str]] = {}
    for row in TRANSITIONS:
        found = letters.setdefault((row.source, row.target), [])
        found += [] if row.letter in found else [row.letter]
    for pair, found in letters.items():
        path, x, y = ARROWS[pair]
        yield f'<path class="arrow" d="{path}"/>'
        # Twice, the wide one below: not every viewer can paint the stroke of a text behind it.
        for kind in ("halo", "letters"):
            yield f'<text class="{kind}" x="{x}" y="{y}">{", ".join(found)}</text>'


def _box(state: State, x: int, y: int) -> str:
    kind = "state end" if state.terminal else "state"
    return (
        f'<rect class="{kind}" x="{x - 56}" y="{y - 18}" width="112" height="36" rx="6"/>'
        f'<text x="{x}" y="{y + 5}">{escape(state)}</text>'
    )


# The tree


def files() -> list[Path]:
    """The source files of the package, below it."""
    found = sorted(path for kind in ("*.py", "*.sql") for path in PACKAGE.rglob(kind))
    return [path.relative_to(PACKAGE) for path in found]


def _tree() -> str:
    lines = ["| file | |", "|---|---|"]
    for row in [["__init__"], *_layers()]:
        lines += [f"| **{LAYERS[name]}** | |" for name in row if name in LAYERS]
        lines += [
            f"| `{path.as_posix()}` | {_sentence(PACKAGE / path)} |"
            for path in files()
            if path.parts[0].removesuffix(".py") in row
        ]
    return "\n".join(lines)


def _layers() -> list[list[str]]:
    """The rows of modules in pyproject.toml, top to bottom."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contract = next(each for each in project["tool"]["importlinter"]["contracts"] if "layers" in each)
    return [re.findall(r"\w+", row) for row in contract["layers"]]


def _sentence(path: Path) -> str:
    """The first of a module's docstring, or of what a SQL file says at its head."""
    text = path.read_text("utf-8")
    if path.suffix == ".sql":
        return f"The tables and indexes. {text.partition(chr(10))[0].lstrip('- ')}"
    said = (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0]
    return re.split(r"(?<=\.) ", " ".join(said.split()))[0]


if __name__ == "__main__":
    for path, content in made().items():
        if not path.exists() or path.read_text("utf-8") != content:
            path.write_text(content, "utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
