"""`segundo doctor`: how a ledger, its file and its processes look from outside, and what to do about it."""

import sqlite3
import stat
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import fastapi
from rich.console import Console

from segundo.app import Segundo
from segundo.cli.backlog import Backlog, Early
from segundo.cli.finding import Finding, Level, report
from segundo.cli.loading import load, segundo_of
from segundo.cli.phrases import duration, number, size
from segundo.cli.place import Place, ledger_at
from segundo.cli.surroundings import LATE, of_the_app, surroundings, variables
from segundo.cli.trial import trial
from segundo.errors import ConfigurationError, LedgerError
from segundo.executors.celery.routes import Routes
from segundo.ledger.mark import HOLDER, NAME, Mark
from segundo.ledger.sqlite import file
from segundo.ledger.sqlite.turns import lock_file
from segundo.ledger.sqlite.visitor import FileVisitor
from segundo.ledger.stores import need_driver
from segundo.ledger.visiting import TooLong, Visitor, Worker
from segundo.record import State
from segundo.settings import settings
from segundo.shape import NEWEST_KNOWN, newer

LARGE_WAL = 64 * 2**20  # bytes; SQLite begins anew after some 4 MiB, unless a long read is in its way
SKEW = 5.0  # seconds between two clocks that are worth a word
WAL_RESET_FIXED = ((3, 44, 6), (3, 50, 7), (3, 51, 3))  # the first of each line of SQLite that has the fix


def examine(
    ledger: str | None, target: str | None = None, *, factory: bool = False, as_json: bool = False
) -> int:
    """Print what is found about a ledger, and the app `target`; the exit code, 1 if something is a problem.

    `ledger`: None: that of the app, or of the environment.
    """
    console = Console(highlight=False)
    with console.status("looking"):
        segundo, wrong = (None, []) if target is None else _loaded(target, factory=factory)
        place = ledger_at(segundo.settings.ledger if segundo is not None and ledger is None else ledger)
        found = [*wrong, *findings(place, segundo)]
    return report(console, found, as_json=as_json)


def _loaded(target: str, *, factory: bool) -> tuple[Segundo | None, list[Finding]]:
    try:
        segundo = segundo_of(load(target, factory=factory), target)
    except ConfigurationError as error:
        first, *rest = str(error).splitlines()
        return None, [Finding(Level.PROBLEM, "app", " ".join([first, *rest[-1:]]))]
    return segundo, list(of_the_app(target, segundo.settings))


def findings(place: Place, segundo: Segundo | None = None) -> Iterator[Finding]:
    """About the ledger at `place`, and what is around it: as the app sets it, or only the environment."""
    yield framework(fastapi.__version__)
    yield from variables()
    backlog = Backlog()
    yield from _file_findings(place, backlog) if isinstance(place, Path) else _server_findings(place, backlog)
    try:
        routes = Routes({}, settings({}).broker) if segundo is None else segundo.routes
    except ConfigurationError as error:
        yield Finding(Level.PROBLEM, "broker", str(error))
        return
    yield from surroundings(routes, backlog, in_a_file=isinstance(place, Path), app=segundo is not None)


def _server_findings(url: str, backlog: Backlog) -> Iterator[Finding]:
    try:
        need_driver()
        from segundo.ledger.postgres.visitor import ServerVisitor

        with ServerVisitor(url) as visitor:
            yield Finding(Level.OK, "server", visitor.server())
            yield Finding(Level.OK, "schema", str(visitor.schema()))
            yield clock(visitor.now(), time.time())
            yield from _processes(visitor)
            yield from _records(visitor, backlog)
            if backlog.early.seconds > SKEW:
                yield _fast(backlog.early)
    except (LedgerError, ConfigurationError) as error:
        yield Finding(Level.PROBLEM, "ledger", str(error))


def clock(server: float, here: float) -> Finding:
    """What is due and who is alive go by the server's clock; a `run_at` that is computed here, by ours."""
    ahead = here - server
    if abs(ahead) <= SKEW:
        return Finding(Level.OK, "clock", "the server's and this machine's agree")
    where, when = ("ahead of", "late") if ahead > 0 else ("behind", "early")
    text = (
        f"this machine's is {duration(abs(ahead))} {where} the server's. That one alone counts for delays, "
        f"retries and leases; a run_at=… that is computed here comes so much too {when}. Let both follow one "
        "clock (NTP)"
    )
    return Finding(Level.WARNING, "clock", text)


def _fast(early: Early) -> Finding:
    text = (
        f"{early.id} was recorded {duration(early.seconds)} before its host's clock says it was made: that "
        "host is ahead, and its run_at=… come so much too late. Let all hosts follow one clock (NTP)"
    )
    return Finding(Level.WARNING, "clock", text)


def _file_findings(path: Path, backlog: Backlog) -> Iterator[Finding]:
    yield file_system(file.filesystem(path.parent))
    try:
        with FileVisitor(path) as visitor:
            yield from _file(path, visitor)
            yield from _permissions(path)
            yield sqlite(sqlite3.sqlite_version_info)
            yield _integrity(visitor)
            yield from _processes(visitor)
            yield from _records(visitor, backlog)
    except LedgerError as error:
        yield Finding(Level.PROBLEM, "ledger", str(error))


def framework(version: str) -> Finding:
    """Segundo hangs on to FastAPI where it promises nothing: a request says whether it still holds."""
    try:
        wrong = trial()
    except ConfigurationError as error:
        wrong = str(error)
    if wrong is not None:
        text = f"{version}: {wrong}. The newest known to work is {NEWEST_KNOWN}"
        return Finding(Level.PROBLEM, "FastAPI", text)
    text = f"{version}: a trial request is recorded before it is answered"
    if newer(version):
        text += f"; newer than {NEWEST_KNOWN}, the newest that all tests were run with"
    return Finding(Level.OK, "FastAPI", text)


# The file


def file_system(kind: str) -> Finding:
    if kind in file.NETWORK:
        text = f"{kind}, over a network: SQLite cannot trust its locks. Move the ledger to a local disk"
        return Finding(Level.PROBLEM, "file system", text)
    if kind in file.FLEETING:
        text = f"{kind}: a restart of this container or machine empties it. Mount a volume for the ledger"
        return Finding(Level.WARNING, "file system", text)
    return Finding(
        Level.OK, "file system", kind or "cannot be told on this system; a network one will not do"
    )


def _file(path: Path, visitor: FileVisitor) -> Iterator[Finding]:
    yield Finding(Level.OK, "file", f"{path}, {size(path.stat().st_size)}")
    yield from schema(visitor)
    wal = _size(path.with_name(path.name + "-wal"))
    if wal > LARGE_WAL:
        text = (
            f"{size(wal)}: a long read keeps it from being merged into the file. End backups and shells on it"
        )
        yield Finding(Level.WARNING, "WAL", text)
    else:
        yield Finding(Level.OK, "WAL", size(wal))


def schema(visitor: FileVisitor) -> Iterator[Finding]:
    """Whether the file's tables are as they were made, and what acts in it beside them."""
    version = visitor.schema()
    missing, planted = visitor.strangers()
    if missing and version == file.SCHEMA_VERSION:
        text = f"{', '.join(missing)}: not as Segundo makes them. Somebody changed them: restore a backup"
        yield Finding(Level.PROBLEM, "schema", text)
    else:
        yield Finding(Level.OK, "schema", f"{version}, application id {file.APPLICATION_ID:#x}")
    if planted:
        text = (
            f"{', '.join(planted)}: nothing of Segundo's. A trigger acts in each transaction on its table: "
            "if you did not make it, look who can write this file, and drop it"
        )
        yield Finding(Level.WARNING, "planted", text)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _permissions(path: Path) -> Iterator[Finding]:
    beside = [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm")]
    files = [each for each in (path, *beside, lock_file(path)) if each.exists()]
    open_to_others = [each for each in files if stat.S_IMODE(each.stat().st_mode) & 0o077]
    if open_to_others:
        names = " ".join(str(each) for each in open_to_others)
        yield Finding(
            Level.WARNING, "permissions", f"others may read arguments and results: chmod 600 {names}"
        )
    else:
        yield Finding(Level.OK, "permissions", "the owner's alone")


def sqlite(version: tuple[int, ...]) -> Finding:
    """Segundo commits and checkpoints in turns, and so avoids SQLite's WAL-reset bug; others may not."""
    text = ".".join(map(str, version))
    line = next((fixed for fixed in WAL_RESET_FIXED if fixed[:2] == version[:2]), WAL_RESET_FIXED[-1])
    if version < line:
        text += (
            "; if code of your own writes to this file, use 3.44.6, 3.50.7, 3.51.3 or newer: before, two "
            "processes that meet in the WAL can damage it. Segundo's own writes are safe"
        )
    return Finding(Level.OK, "SQLite", text)


def _integrity(visitor: FileVisitor) -> Finding:
    try:
        damage = visitor.damage()
    except TooLong:
        return Finding(Level.WARNING, "integrity", "not known: the file is too large to be checked in 30 s")
    if damage:
        text = f"damaged: {'; '.join(damage)}. Stop the app, keep a copy of all its files, restore a backup"
        return Finding(Level.PROBLEM, "integrity", text)
    return Finding(Level.OK, "integrity", "SQLite's quick check finds nothing")


# Processes


def _processes(visitor: Visitor) -> Iterator[Finding]:
    workers = visitor.workers()
    alive = [worker for worker in workers if worker.alive]
    yield _alive(alive)
    yield from _dead([worker for worker in workers if not worker.alive], bool(alive))
    yield _durability(alive)
    yield from _moves(visitor.notes())
    orphans = visitor.orphans()
    if orphans and not any(name.startswith(HOLDER) for name in visitor.notes()):
        text = f"{number(orphans, 'record')} in the hands of no known process: a fault of Segundo, report it"
        yield Finding(Level.PROBLEM, "owners", text)


def _moves(notes: Mapping[str, str]) -> Iterator[Finding]:
    if NAME in notes:
        yield Finding(Level.WARNING, "moved", str(Mark.read(notes[NAME]).error()))
    if any(name.startswith(HOLDER) for name in notes):
        text = "a move into this ledger is not finished, and what came waits: run that `segundo move` again"
        yield Finding(Level.WARNING, "move", text)


def _alive(alive: Sequence[Worker]) -> Finding:
    if not alive:
        return Finding(
            Level.WARNING, "processes", "none: nothing runs until the app or `segundo worker` is started"
        )
    now = time.time()
    each = ", ".join(
        f"pid {worker.pid} on {worker.host} for {duration(now - worker.started_at)}"
        f"{' (stopping)' if worker.stopping else ''}"
        for worker in alive
    )
    return Finding(Level.OK, "processes", f"{len(alive)} alive: {each}")


def _dead(dead: Sequence[Worker], somebody_lives: bool) -> Iterator[Finding]:
    held = sum(worker.held for worker in dead)
    if held:
        pids = ", ".join(str(worker.pid) for worker in dead)
        when = "a living process takes them over within seconds" if somebody_lives else "start the app"
        yield Finding(
            Level.WARNING, "dead", f"pid {pids} ended with {number(held, 'record')} in hand: {when}"
        )


def _durability(alive: Sequence[Worker]) -> Finding:
    found = {worker.durability for worker in alive}
    where = "" if found else " (as set here; no process runs that could be asked)"
    found = found or {settings({}).durability}
    if "normal" in found:
        text = f'normal{where}: a power loss may take the last commits. durability="full" keeps them'
        return Finding(Level.WARNING, "durability", text)
    return Finding(Level.OK, "durability", f"full{where}: a commit survives power loss")


# Records


def _records(visitor: Visitor, backlog: Backlog) -> Iterator[Finding]:
    backlog.take(visitor, visitor.now())
    backlog.nobody = not any(worker.alive for worker in visitor.workers())
    states = backlog.states
    yield Finding(Level.OK, "records", ", ".join(f"{states[state]:,} {state}" for state in State))
    yield _due(backlog)
    if states[State.RUNNING]:
        yield from _longest(visitor)
    if backlog.unknown:
        yield _unknown(backlog.unknown)


def _due(backlog: Backlog) -> Finding:
    late, queue = max(
        ((waiting.late or 0.0, waiting.queue) for waiting in backlog.waiting), default=(0.0, "")
    )
    if late <= 0:
        return Finding(Level.OK, "due", "nothing waits to be run now")
    text = f"the oldest has waited for {duration(late)}, in the queue {queue}"
    if late <= LATE:
        return Finding(Level.OK, "due", text)
    if backlog.nobody:
        return Finding(Level.PROBLEM, "due", f"{text}, and nobody runs it: start the app or `segundo worker`")
    return Finding(Level.WARNING, "due", text)


def _longest(visitor: Visitor) -> Iterator[Finding]:
    record = visitor.longest()
    if record is not None and record.started_at is not None:
        text = f"the longest for {duration(time.time() - record.started_at)}: {record.task} {record.id}"
        overdue = record.overdue(time.time())
        if overdue:
            text += ", past its timeout: a `def` cannot be stopped, let it look at current().cancelled"
        yield Finding(Level.WARNING if overdue else Level.OK, "running", text)


def _unknown(tasks: Counter[str]) -> Finding:
    names = ", ".join(f"{name} ({count:,})" for name, count in tasks.most_common(5))
    text = (
        f"{number(tasks.total(), 'record')} put off, of tasks that no process knew: {names}. Deploy the code "
        "that declares them, or cancel them; after 7 days they fail"
    )
    return Finding(Level.WARNING, "unknown", text)
