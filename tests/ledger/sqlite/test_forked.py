"""A forked copy of a process: SQLite's locks in it are not to be trusted, so it does nothing and says so."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

# Each test runs in a process of its own, which forks while the ledger is open; the child prints what it met.
PARENT = """
import asyncio, os, sys
from segundo.errors import LedgerForked
from segundo.ledger.sqlite import SQLiteLedger
from segundo.record import Call, new_id

def call():
    return Call(id=new_id(), task="tests:work", arguments="{}", held=False)

def told(use):
    try:
        return asyncio.run(use())
    except LedgerForked as error:
        return f"LedgerForked: {error}"

async def open_and_record(path, owner):
    ledger = SQLiteLedger(path)
    await ledger.open()
    await ledger.join(owner)
    await ledger.record([call()], owner=owner)
    return ledger

path = sys.argv[1]
loop = asyncio.new_event_loop()
ledger = loop.run_until_complete(open_and_record(path, "parent"))

def forked(child):
    pid = os.fork()
    if pid == 0:
        try:
            print(child(), flush=True)
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""
USES = {
    "record": "lambda: ledger.record([call()], owner='parent')",
    "claim": "lambda: ledger.claim('parent', limit=1)",
    "select": "lambda: ledger.select()",
    "release": "lambda: ledger.release('parent', [])",
}


def run(script: str, path: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PARENT + script, str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("use", USES)
def test_a_ledger_used_after_a_fork_says_so_and_does_nothing(tmp_path: Path, use: str) -> None:
    said, left = run(
        f"async def use(): return await ({USES[use]})()\n"
        "forked(lambda: told(use))\n"
        "print(len(loop.run_until_complete(ledger.select())))\n"
        "loop.run_until_complete(ledger.close())",
        tmp_path / "ledger.db",
    )
    assert said.startswith("LedgerForked: ")
    assert "opened before this process was forked" in said
    assert left == "1"


@pytest.mark.parametrize("whose", ["ledger", "SQLiteLedger(path)"])
def test_a_forked_process_cannot_open_what_its_parent_has_open(tmp_path: Path, whose: str) -> None:
    (said,) = run(
        f"async def use(): await {whose}.open()\n"
        "forked(lambda: told(use))\n"
        "loop.run_until_complete(ledger.close())",
        tmp_path / "ledger.db",
    )
    assert said.startswith("LedgerForked: this process was forked while the ledger was open")


def test_a_fork_that_ends_does_not_make_its_parent_look_dead(tmp_path: Path) -> None:
    """Neither by its end, nor by closing what it inherited."""
    said, crashes = run(
        "async def close(): await ledger.close()\n"
        "loop.run_until_complete(ledger.claim('parent', limit=1))\n"
        "forked(lambda: told(close))\n"
        "import subprocess\n"
        "RESCUE = '''\n"
        "import asyncio, sys\n"
        "from segundo.ledger.sqlite import SQLiteLedger\n"
        "async def rescue():\n"
        "    ledger = SQLiteLedger(sys.argv[1])\n"
        "    await ledger.open()\n"
        "    print(len(await ledger.rescue()), flush=True)\n"
        "    await ledger.close()\n"
        "asyncio.run(rescue())'''\n"
        "subprocess.run([sys.executable, '-c', RESCUE, path], check=True)\n"
        "loop.run_until_complete(ledger.close())",
        tmp_path / "ledger.db",
    )
    assert (said, crashes) == ("None", "0")


def test_a_process_forked_before_the_ledger_was_opened_opens_its_own(tmp_path: Path) -> None:
    said, number = run(
        "loop.run_until_complete(ledger.leave('parent'))\n"
        "loop.run_until_complete(ledger.close())\n"
        "async def use():\n"
        "    child = await open_and_record(path, 'child')\n"
        "    number = len(await child.select())\n"
        "    await child.close()\n"
        "    return number\n"
        "forked(lambda: told(use))\n"
        "loop.run_until_complete(ledger.open())\n"
        "print(len(loop.run_until_complete(ledger.select())))\n"
        "loop.run_until_complete(ledger.close())",
        tmp_path / "ledger.db",
    )
    assert (said, number) == ("2", "2")
