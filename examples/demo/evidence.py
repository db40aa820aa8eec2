"""What really happened, read from where it happened: the ledger, the mailbox, the reports, the audit log."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from examples.demo.program import ROOT
from examples.demo.stage import Stage

LIVE = ("waiting", "queued", "running")


@dataclass(frozen=True)
class Evidence:
    """`records` by id, `emails` counted by address, `reports` by sha256, audit lines by request id."""

    records: Mapping[str, Mapping[str, Any]]
    emails: Counter[str]
    reports: Mapping[str, Mapping[str, Any]]
    audited: Counter[str]

    @classmethod
    async def collect(cls, stage: Stage) -> "Evidence":
        return cls(
            records=await records(stage.ledger),
            emails=Counter(stage.mailbox.arrived),
            reports=reports(stage.server.uploads),
            audited=audited(stage.server.audit_log),
        )


async def records(ledger: str) -> dict[str, dict[str, Any]]:
    """All records of the ledger, as `segundo ls --json` prints them."""
    ls = ["ls", "--json", "--limit", "1000000", "--ledger", ledger]
    command = [sys.executable, "-m", "segundo", *ls]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stderr=PIPE)
    out, err = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"segundo ls ended with exit code {process.returncode}:\n{err.decode()}")
    return {record["id"]: record for record in map(json.loads, out.splitlines())}


async def live(ledger: str) -> int:
    return sum(record["state"] in LIVE for record in (await records(ledger)).values())


def reports(uploads: Path) -> dict[str, dict[str, Any]]:
    """The reports of all files. A picture's must have its thumbnail beside it, or it is not counted."""
    found: dict[str, dict[str, Any]] = {}
    for path in uploads.glob("*/report.json"):
        report = json.loads(path.read_bytes())
        if report["picture"] is None or is_picture(path.with_name("thumbnail.png")):
            found[report["sha256"]] = report
    return found


def is_picture(path: Path) -> bool:
    if not path.exists():
        return False
    with Image.open(BytesIO(path.read_bytes())) as image:
        image.load()
        return max(image.size) == 128


def audited(log: Path) -> Counter[str]:
    """How many lines each request has in the audit log."""
    lines = log.read_text().splitlines() if log.exists() else []
    return Counter(json.loads(line)["request"] for line in lines)
