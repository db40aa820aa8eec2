"""The command line, `segundo`. Typer and Rich are its own: nothing else loads them."""

import sys

from segundo.errors import SegundoError

EXTRA = ("typer", "rich", "click")


def main() -> None:
    """Run the command that the program's arguments name.

    Ends the process: 0 if all is well, 1 with a message on standard error if not, 2 if the arguments are no
    command.
    """
    try:
        from segundo.cli.commands import commands
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in EXTRA:
            raise
        sys.exit(f'segundo: the command line needs {missing.name}: pip install "segundo[cli]"')
    try:
        commands()
    except SegundoError as error:
        sys.exit(f"segundo: {error}")
