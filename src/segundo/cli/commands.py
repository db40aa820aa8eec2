"""Every command, its arguments and what `--help` says of them."""

from importlib.metadata import version
from typing import Annotated

import typer

from segundo.cli import doctor as doctors
from segundo.cli import migrations, moves, records
from segundo.cli import worker as workers
from segundo.cli.place import ledger_at
from segundo.record import State

ABOUT = """
Segundo's command line: look into a ledger, and run its records.

The ledger is the file, or the database, that the app keeps its records in. Every command finds it by
--ledger, else by the variable SEGUNDO_LEDGER, else as segundo.db in this folder; only `worker` asks the app,
and `doctor` if it is told which.
"""
RUN, LOOK, ACT = "Run", "Look: these only read, beside a running app", "Act"

commands = typer.Typer(
    help=ABOUT,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Ledger = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        metavar="PLACE",
        help="The ledger's file, or postgresql://… [SEGUNDO_LEDGER, else ./segundo.db].",
        show_default=False,
    ),
]
Id = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="The record's id, or as much of its beginning as is unique.", show_default=False
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"segundo {version('segundo')}")
        raise typer.Exit


@commands.callback()
def segundo(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@commands.command(rich_help_panel=RUN)
def worker(
    app: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:APP", help="The app, as uvicorn takes it: main:app.", show_default=False
        ),
    ],
    queue: Annotated[
        list[str] | None,
        typer.Option(
            "--queue",
            metavar="QUEUE",
            help="Run only this queue; say it again for more. [all]",
            show_default=False,
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="How many records run at once. [the app's own, else 64]",
            show_default=False,
        ),
    ] = None,
    factory: Annotated[
        bool, typer.Option("--factory", help="APP is a function that returns the app.")
    ] = False,
) -> None:
    """Run the app's records in this process, without serving HTTP.

    The app starts as under a server, its lifespan included. Start as many workers as you like beside it: each
    record is run by one of them.

    SIGTERM or Ctrl-C: claims no more, lets what runs end within the app's grace, and stops. A second one
    stops at once; another process then takes over what ran.
    """
    workers.work(app, factory=factory, queues=queue or None, concurrency=concurrency)


@commands.command(rich_help_panel=LOOK)
def ls(
    ledger: Ledger = None,
    state: Annotated[
        State | None,
        typer.Option(
            metavar="STATE",
            help="Only what is waiting, queued, running, succeeded, failed or cancelled.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only records of this task.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 50,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line; times are unix seconds.")
    ] = False,
) -> None:
    """List records, the newest first."""
    show = records.print_json if json else records.print_table
    show(ledger_at(ledger), state=state, task=task, limit=limit)


@commands.command(rich_help_panel=LOOK)
def show(
    id: Id,
    ledger: Ledger = None,
) -> None:
    """Show all that is known of a record: arguments, result, error and traceback too."""
    records.show(ledger_at(ledger), id)


@commands.command(rich_help_panel=LOOK)
def doctor(
    app: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE:APP",
            envvar="SEGUNDO_APP",
            help="The app, to know what it sets itself, its queues and its Celery apps among it.",
            show_default=False,
            show_envvar=False,
        ),
    ] = None,
    ledger: Ledger = None,
    factory: Annotated[
        bool, typer.Option("--factory", help="APP is a function that returns the app.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Examine the ledger, the processes that work on it, the settings, the broker and its workers.

    The app is that of SEGUNDO_APP if none is named; without one, the environment says what is set. Each line
    is ok, a warning or a problem, and says what to do. Exits with 1 if there is a problem.
    """
    raise typer.Exit(doctors.examine(ledger, app, factory=factory, as_json=json))


@commands.command(rich_help_panel=ACT)
def retry(id: Id, ledger: Ledger = None) -> None:
    """Run an ended record's call again, as a new record, whose id is printed.

    The new record keeps the key, so that a call is not run twice at a time: while one with the key is
    live, the retry is recorded as cancelled, reason Duplicate.
    """
    records.retry(ledger_at(ledger), id)


@commands.command(rich_help_panel=ACT)
def cancel(id: Id, ledger: Ledger = None) -> None:
    """Cancel a record that has not started, or ask the attempt that runs to stop.

    An `async def` task is cancelled at its next await, wherever it runs; a `def` sees it and may go on.
    """
    records.cancel(ledger_at(ledger), id)


@commands.command(rich_help_panel=ACT)
def prune(
    ledger: Ledger = None,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE",
            help="Delete what ended longer ago: 90s, 15m, 12h, 7d, 2w. [each record's retention]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Delete ended records that are past their retention; a running app does so by itself."""
    records.prune(ledger_at(ledger), older_than)


@commands.command(rich_help_panel=ACT)
def move(
    old: Annotated[
        str,
        typer.Argument(
            metavar="OLD", help="The ledger that they leave: a file, or postgresql://…", show_default=False
        ),
    ],
    new: Annotated[
        str,
        typer.Argument(
            metavar="NEW", help="The ledger that they go to; it is made if need be.", show_default=False
        ),
    ],
    all: Annotated[bool, typer.Option("--all", help="Records that have ended, too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would move.")] = False,
) -> None:
    """Move the records that have not ended to another ledger, with all that they have been through.

    Stop the app and its workers first: while one is alive in OLD, nothing is moved. Apps may run on NEW.
    Broken off, also by a kill, the same command finishes it: each record runs once. OLD is then shut, and
    tells an app that opens it where its records went.
    """
    act = moves.show if dry_run else moves.move
    act(ledger_at(old), ledger_at(new), ended=all)


@commands.command(rich_help_panel=ACT)
def migrate(ledger: Ledger = None) -> None:
    """Make the tables of a ledger on a server, or bring them up to date.

    An app does so itself when it starts, if its role may. A second call finds nothing to do.
    """
    typer.echo(migrations.migrate(ledger_at(ledger)))
