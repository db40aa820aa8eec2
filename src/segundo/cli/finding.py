"""What `segundo doctor` finds: how bad it is, what was looked at, and what is to be done."""

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segundo.cli.phrases import line


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


STYLES = {Level.OK: "green", Level.WARNING: "yellow bold", Level.PROBLEM: "red bold"}


class Finding(NamedTuple):
    """One line: how bad it is, what was looked at, and what was found and is to be done."""

    level: Level
    subject: str
    text: str


def table(found: Sequence[Finding]) -> Table:
    made = Table.grid(padding=(0, 2, 0, 0))
    for level, subject, text in found:
        made.add_row(
            Text(level, STYLES[level]), Text(subject, no_wrap=True), Text(line(text), overflow="fold")
        )
    return made


def report(console: Console, found: Sequence[Finding], *, as_json: bool) -> int:
    """Print them; the exit code, 1 if something is a problem."""
    if as_json:
        for finding in found:
            console.file.write(json.dumps(finding._asdict(), ensure_ascii=False) + "\n")
    else:
        console.print(table(found))
    return int(any(finding.level is Level.PROBLEM for finding in found))
