"""The command line without a process of its own."""

import sys
from collections.abc import Callable

import pytest

from segundo.cli import main
from tests.cli.terminal import Answer


@pytest.fixture
def inside(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """`segundo …` in this process: quicker than `terminal.segundo`, which shows what only a process can."""
    monkeypatch.setenv("COLUMNS", "80")

    def type_in(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["segundo", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        out, err = capsys.readouterr()
        if isinstance(code, str):  # Python itself prints it, and ends with 1
            return Answer(1, out, err + code)
        return Answer(int(code or 0), out, err)

    return type_in
