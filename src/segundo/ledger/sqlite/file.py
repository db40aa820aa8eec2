"""The ledger's file: found, checked, created, opened with the settings that the promises need."""

import logging
import os
import platform
import re
import sqlite3
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Literal

from segundo.errors import LedgerUnusable
from segundo.ledger.sqlite.questions import MADE

logger = logging.getLogger("segundo.ledger")

Durability = Literal["full", "normal"]

APPLICATION_ID = 0x5365_676F  # "Sego" in the file's header
SCHEMA_VERSION = 1
OLDEST_READER = 1  # the oldest schema version whose programs may still open this file
OLDEST_SQLITE = (3, 37, 0)  # the first with STRICT tables
TABLES = ("records", "links", "workers", "meta")
BUSY_MS = 200  # how long one attempt to begin waits for a stranger's lock; the writer tries again

NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "9p", "ceph", "lustre", "beegfs"),
        *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph-fuse", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse"),
    }
)
FLEETING = frozenset({"overlay", "tmpfs", "ramfs", "aufs"})


def prepare(path: Path) -> None:
    """Check the place, and create the file (readable by its owner alone) if there is none."""
    check_sqlite(sqlite3.sqlite_version_info)
    if not path.parent.is_dir():
        raise LedgerUnusable(
            f"ledger {path}: the folder {path.parent} does not exist; create it or set SEGUNDO_LEDGER"
        )
    check_filesystem(path, filesystem(path.parent))
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if not path.is_file():
            raise LedgerUnusable(f"ledger {path} is no file; choose another path") from None
        if not os.access(path, os.R_OK | os.W_OK):
            raise LedgerUnusable(f"ledger {path} cannot be read and written by this user") from None
    except OSError as error:
        raise LedgerUnusable(f"ledger {path} cannot be created: {error.strerror}") from error


def check_sqlite(version: tuple[int, ...]) -> None:
    if version < OLDEST_SQLITE:
        oldest, found = (".".join(map(str, each)) for each in (OLDEST_SQLITE, version))
        raise LedgerUnusable(f"the ledger needs SQLite {oldest} or newer, and this Python has {found}")


def check_filesystem(path: Path, kind: str) -> None:
    """Refuse a file system of this kind if it is on a network, warn if it does not last."""
    if kind in NETWORK:
        raise LedgerUnusable(
            f"ledger {path} is on a network file system ({kind}), whose locks SQLite cannot trust: "
            "use a local disk, or PostgreSQL"
        )
    if kind in FLEETING:
        logger.warning(
            "ledger %s is on %s, which a restart of this container or machine empties: mount a volume",
            path,
            kind,
        )


def connect(
    path: Path, durability: Durability, *, factory: type[sqlite3.Connection] = sqlite3.Connection
) -> sqlite3.Connection:
    """A connection in autocommit: transactions are begun by name, where they are needed.

    It never creates the file: `prepare` does, once. A file that is gone must not come back empty.
    """
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=rw",
        uri=True,
        timeout=BUSY_MS / 1000,
        isolation_level=None,
        check_same_thread=False,
        factory=factory,
    )
    try:
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
        if platform.system() == "Darwin":  # fsync alone leaves the data in the drive's cache
            connection.execute(f"PRAGMA fullfsync = {int(durability == 'full')}")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA secure_delete = ON")  # what is wiped is overwritten, not only let go
        _distrust(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def read_only(path: Path, *, immutable: bool = False) -> sqlite3.Connection:
    """A connection that changes nothing. `immutable`: nobody has the file open, so no lock is looked at."""
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=ro{'&immutable=1' if immutable else ''}",
        uri=True,
        timeout=BUSY_MS / 1000,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.text_factory = readable
    connection.execute("PRAGMA query_only = 1")
    _distrust(connection)
    return connection


def _distrust(connection: sqlite3.Connection) -> None:
    """What the file itself says, in a trigger or a view, calls no function and no table of any extension.

    (test_a_trigger_in_the_file_calls_nothing_outside_it)
    """
    connection.execute("PRAGMA trusted_schema = OFF")


def readable(text: bytes) -> str:
    """A text of the file. What is no UTF-8 in it was never written by a Segundo, and still is read."""
    return text.decode("utf-8", "replace")


def is_unreadable(error: BaseException) -> bool:
    """Whether an error of `sqlite3` says that a text of the file is no UTF-8."""
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith("Could not decode to UTF-8")


def set_up(connection: sqlite3.Connection, path: Path) -> None:
    """Make an empty file a ledger, or check that this program may open it. Runs inside the turn."""
    if _header(connection) == (0, 0) and not _tables(connection):
        _create(connection)
    else:
        check(connection, path)


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Whether this program may open the file. Raises LedgerUnusable."""
    application, version = _header(connection)
    if application != APPLICATION_ID:
        raise LedgerUnusable(f"{path} is a SQLite file, but not a ledger of Segundo; choose another path")
    if version > SCHEMA_VERSION and _oldest_reader(connection) > SCHEMA_VERSION:
        raise LedgerUnusable(
            f"ledger {path} was made by a newer Segundo (schema {version}); upgrade this one"
        )
    _check_tables(connection, path)


def _check_tables(connection: sqlite3.Connection, path: Path) -> None:
    """Tables that are strict hold no value of another type than all our code expects of them."""
    found = connection.execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND strict"
    )
    missing = set(TABLES) - {name for (name,) in found}
    if missing:
        raise LedgerUnusable(
            f"ledger {path}: its {' and '.join(sorted(missing))} are not the tables that Segundo makes. "
            "Somebody has changed them: restore a backup, or choose another path"
        )


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(
        f"BEGIN IMMEDIATE; {_schema()}"
        f"INSERT INTO meta VALUES ('oldest_reader', '{OLDEST_READER}');"
        f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
    )


def _schema() -> str:
    return resources.files(__package__ or "").joinpath("schema.sql").read_text("utf-8")


def made() -> set[tuple[str, str, str, str]]:
    """All that a new ledger has: kind, name, table and text of each."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_schema())
        return set(connection.execute(MADE))


def _header(connection: sqlite3.Connection) -> tuple[int, int]:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return application, version


def _tables(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM sqlite_schema)").fetchone()[0])


def _oldest_reader(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT value FROM meta WHERE name = 'oldest_reader'").fetchone()[0])


def filesystem(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The type of the file system that holds `folder`, as the kernel names it; "" where it cannot be told."""
    try:
        lines = mounts.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    real, best, kind = os.path.realpath(folder), "", ""
    for line in lines:
        _, point, fstype, *_ = line.split(" ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fstype
    return kind
