"""`segundo` as a program: how it is found, what it says of itself, how it ends."""

import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.cli.terminal import Answer, segundo
from tests.support import ROOT

Inside = Callable[..., Answer]
COMMANDS = ("worker", "ls", "show", "doctor", "retry", "cancel", "prune")
ON_A_LEDGER = [["ls"], ["show", "x"], ["doctor"], ["retry", "x"], ["cancel", "x"], ["prune"]]


def python(program: str) -> Answer:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    return Answer(done.returncode, done.stdout, done.stderr)


def test_the_script_and_the_module_are_one_program() -> None:
    script = subprocess.run(
        [Path(sys.executable).with_name("segundo"), "--version"], capture_output=True, text=True
    )
    assert script.stdout == segundo("--version").out == f"segundo {version('segundo')}\n"


def test_help_names_every_command_and_fits_the_terminal(inside: Inside) -> None:
    answer = inside("--help")
    assert answer.code == 0
    assert [name for name in COMMANDS if not re.search(rf"│ {name} ", answer.out)] == []
    assert max(map(len, answer.out.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_about_the_command_line_names_every_option(command: str, inside: Inside) -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    options = set(re.findall(r"--[a-z-]+", inside(command, "--help").out)) - {"--help"}
    assert f"segundo {command}" in page
    assert [option for option in sorted(options) if option not in page] == []


def test_no_command_shows_the_help_and_an_unknown_one_is_refused(inside: Inside) -> None:
    assert "Usage" in inside().out
    answer = inside("lst")
    assert answer.code == 2
    assert "lst" in answer.err


def test_without_its_extra_it_says_how_to_install_it() -> None:
    answer = python("import sys; sys.modules['typer'] = None; from segundo.cli import main; main()")
    assert answer == Answer(1, "", 'segundo: the command line needs typer: pip install "segundo[cli]"\n')


def test_a_fault_of_our_own_is_not_taken_for_a_missing_extra() -> None:
    answer = python(
        "import sys; sys.modules['segundo.ledger.sqlite.visitor'] = None; import segundo.__main__"
    )
    assert "Traceback" in answer.err
    assert "pip install" not in answer.err


def test_the_library_loads_nothing_of_the_command_line() -> None:
    names = "'typer', 'rich', 'segundo.cli'"
    answer = python(f"import sys, segundo; print([name for name in ({names}) if name in sys.modules])")
    assert answer == Answer(0, "[]\n", "")


@pytest.mark.parametrize("command", ON_A_LEDGER, ids=" ".join)
def test_a_ledger_that_is_not_there_is_an_error_and_is_not_made(command: list[str], inside: Inside) -> None:
    answer = inside(*command, "--ledger", "absent.db")
    assert answer.code == 1
    assert "there is no ledger at" in answer.out + answer.err
    assert "Traceback" not in answer.err
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("command", ON_A_LEDGER, ids=" ".join)
def test_a_file_that_is_no_ledger_is_an_error_and_is_left_alone(command: list[str], inside: Inside) -> None:
    Path("notes.txt").write_text("buy milk " * 1000)
    answer = inside(*command, "--ledger", "notes.txt")
    assert answer.code == 1
    assert "notes.txt" in (answer.out + answer.err).replace("\n", "")
    assert Path("notes.txt").read_text() == "buy milk " * 1000
    assert [path.name for path in Path().iterdir()] == ["notes.txt"]


def test_the_environment_names_the_ledger_and_the_option_comes_first(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGUNDO_LEDGER", "named.db")
    assert "/named.db" in inside("ls").err
    assert "/given.db" in inside("ls", "--ledger", "sqlite:///given.db").err


def test_records_in_memory_are_out_of_reach(inside: Inside) -> None:
    answer = inside("ls", "--ledger", "memory://")
    assert (answer.code, answer.out) == (1, "")
    assert "name a file" in answer.err


def test_a_setting_that_cannot_be_is_named(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUNDO_DURABILITY", "often")
    answer = inside("ls")
    assert answer.code == 1
    assert "SEGUNDO_DURABILITY" in answer.err
