"""Tables on the screen, and the same tables as one section of RESULTS.md."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from bench import machine
from bench.figures import Estimate

RESULTS = Path(__file__).with_name("RESULTS.md")
HEADING = """# Results

Written by `python -m bench`; each section names the command that made it, and that command writes it again.
Ratios compare two contenders in the same minutes on the same machine; absolute figures depend on the machine.
An interval is of the median, by order statistics, with its coverage and the number of rounds.
"""


@dataclass(frozen=True)
class Target:
    """What the project asks of itself, and what was measured."""

    asked: str
    measured: float | Estimate | None
    limit: float
    at_least: bool
    unit: str = ""
    digits: int = 2
    why_not: str = ""  # the reason, when nothing was measured

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        value = self.measured.median if isinstance(self.measured, Estimate) else self.measured
        return value >= self.limit if self.at_least else value <= self.limit

    @property
    def verdict(self) -> str:
        if self.met is None:
            return f"not measured: {self.why_not}"
        verdict = "met" if self.met else "NOT met"
        spans = isinstance(self.measured, Estimate) and self.measured.low < self.limit < self.measured.high
        return verdict + (", but the interval spans the limit" if spans else "")

    def row(self) -> list[str]:
        sign = "≥" if self.at_least else "≤"
        if self.measured is None:
            measured = "–"
        elif isinstance(self.measured, Estimate):
            measured = self.measured.text(self.digits)
        else:
            measured = f"{self.measured:,.{self.digits}f}"
        return [self.asked, f"{sign} {self.limit:,g}{self.unit}", measured, self.verdict]


@dataclass
class Report:
    """What one benchmark found: named tables, remarks, and the targets."""

    name: str
    about: str
    tables: list[str] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        self.tables.append(f"{title}\n\n{markdown(columns, rows)}" if title else markdown(columns, rows))

    def remark(self, text: str) -> None:
        self.tables.append(text)

    @property
    def all_met(self) -> bool:
        return all(target.met is not False for target in self.targets)

    def text(self) -> str:
        parts = list(self.tables)
        if self.targets:
            rows = [target.row() for target in self.targets]
            parts.append(markdown(["target", "asked", "measured", "verdict"], rows))
        return "\n\n".join(parts)

    def section(self, arguments: Sequence[str], directory: Path) -> str:
        command = shlex.join(["python", "-m", "bench", *arguments])
        where = (
            f"`{command}`, {date.today().isoformat()}. {machine.machine(directory)}. {machine.versions()}."
        )
        return f"## {self.name}\n\n{self.about}\n\n{where}\n\n{self.text()}"


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An aligned Markdown table, readable as plain text too; all but the first column set to the right."""
    body = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *body, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = [
            cell.ljust(width) if not index else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join([first, *others]) + " |"

    rule = "| " + " | ".join("-" * w if not i else "-" * (w - 1) + ":" for i, w in enumerate(widths)) + " |"
    return "\n".join([line(columns), rule, *map(line, body)])


def write(name: str, section: str, path: Path = RESULTS) -> None:
    """Put the section in its place in the file, in the order of names, and leave the others as they are."""
    found = _sections(path.read_text(encoding="utf-8")) if path.exists() else {}
    found[name] = section
    blocks = [f"<!-- begin {key} -->\n{text}\n<!-- end {key} -->" for key, text in sorted(found.items())]
    path.write_text("\n\n".join([HEADING.strip(), *blocks]) + "\n", encoding="utf-8")


def _sections(text: str) -> dict[str, str]:
    pattern = re.compile(r"<!-- begin (?P<name>.+?) -->\n(?P<body>.*?)\n<!-- end (?P=name) -->", re.DOTALL)
    return {match["name"]: match["body"] for match in pattern.finditer(text)}


def progress(text: str) -> None:
    """One line on standard error while a long run goes on."""
    print(text, file=sys.stderr, flush=True)
