"""What holds the ledger's file: a network's locks are not to be trusted, and memory does not last."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from segundo.errors import LedgerUnusable
from segundo.ledger.sqlite import SQLiteLedger
from segundo.ledger.sqlite.file import FLEETING, NETWORK, check_filesystem, filesystem

MOUNTS = """\
/dev/root / ext4 rw,relatime 0 0
proc /proc proc rw,nosuid 0 0
tmpfs /dev/shm tmpfs rw 0 0
server:/export /srv/data nfs4 rw,addr=192.0.2.1 0 0
/dev/sdb /srv/data/local xfs rw 0 0
//server/share /mnt/our\\040share cifs rw 0 0
server:/e /mnt/données nfs rw 0 0
back\\134slash /mnt/a\\134b fuse.sshfs rw 0 0
tmpfs /var/app tmpfs rw 0 0
/dev/sdc /var/app ext4 rw 0 0
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    table = tmp_path / "mounts"
    table.write_text(MOUNTS, "utf-8")
    return table


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", "ext4"),
        ("/home/app", "ext4"),
        ("/srv", "ext4"),
        ("/srv/data", "nfs4"),
        ("/srv/data/app", "nfs4"),
        ("/srv/database", "ext4"),
        ("/srv/data/local/app", "xfs"),
        ("/mnt/our share/app", "cifs"),
        ("/mnt/données", "nfs"),
        ("/mnt/a\\b", "fuse.sshfs"),
        ("/var/app", "ext4"),
    ],
)
def test_a_folder_is_on_what_is_mounted_last_and_closest(folder: str, kind: str, mounts: Path) -> None:
    assert filesystem(Path(folder), mounts) == kind


def test_a_symlink_is_on_what_it_leads_to(tmp_path: Path, mounts: Path) -> None:
    (tmp_path / "data").symlink_to("/srv/data")
    assert filesystem(tmp_path / "data", mounts) == "nfs4"


def test_a_system_without_such_a_table_tells_nothing(tmp_path: Path) -> None:
    assert filesystem(tmp_path, tmp_path / "no table") == ""
    check_filesystem(tmp_path / "ledger.db", "")


@pytest.mark.parametrize("kind", sorted(NETWORK))
def test_a_network_file_system_is_refused_by_name(kind: str) -> None:
    with pytest.raises(LedgerUnusable, match=f"network file system \\({kind}\\).*local disk"):
        check_filesystem(Path("/srv/ledger.db"), kind)


@pytest.mark.parametrize("kind", sorted(FLEETING))
def test_a_file_system_that_does_not_last_is_warned_of(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    check_filesystem(Path("/srv/ledger.db"), kind)
    assert [(record.levelno, kind in record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, True)
    ]


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "f2fs", "apfs", "fuseblk"])
def test_a_local_disk_is_taken_without_a_word(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    check_filesystem(Path("/srv/ledger.db"), kind)
    assert caplog.records == []


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    shm = Path("/dev/shm")
    if filesystem(shm) != "tmpfs":
        pytest.skip("this system has no tmpfs at /dev/shm")
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        yield Path(folder) / "ledger.db"


async def test_a_ledger_on_a_tmpfs_opens_and_warns(in_memory: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = SQLiteLedger(in_memory)
    await ledger.open()
    await ledger.close()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"{in_memory} is on tmpfs" in caplog.text
