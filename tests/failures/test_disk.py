"""A disk that fails, is full, or loses power: at the system calls, under SQLite."""

import json
import sqlite3
from pathlib import Path
from random import Random, SystemRandom

import pytest

from tests.failures import disk
from tests.failures.disk import LEDGER, Op, Platter
from tests.failures.story import check_file

pytestmark = pytest.mark.skipif(disk.why_not() is not None, reason=str(disk.why_not()))

FAULTS = [
    ("WRITE", "EIO", "once"),
    ("WRITE", "EIO", "torn"),
    ("WRITE", "ENOSPC", "lasting"),
    ("SYNC", "EIO", "once"),
    ("SYNC", "EIO", "lasting"),
    ("TRUNCATE", "EIO", "once"),
]
# Which share of the operations fails, one after the other, and how many that is at least.
SHARE = {"WRITE": 0.3, "SYNC": 1.0, "TRUNCATE": 1.0}
LEAST = {"tell": {"WRITE": 60, "SYNC": 15, "TRUNCATE": 1}, "open": {"WRITE": 20, "SYNC": 3}}
CUTS = 100


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disk.build(tmp_path_factory.mktemp("disk"))


def loop(library: Path, own: Path, what: str, fault: tuple[str, str, str], share: float) -> None:
    seed = SystemRandom().randrange(10**6)
    print(what, *fault, "seed", seed)  # pytest shows it when the test fails
    with disk.fast_folder(own) as folder:
        module = "tests.failures.on_a_failing_disk"
        faults = disk.run(library, module, what, *fault, share, seed, cwd=folder, timeout=300)
    assert int(faults) >= LEAST[what][fault[0]], "the disk has hardly failed"


@pytest.mark.parametrize("fault", FAULTS, ids=" ".join)
def test_the_promises_hold_whichever_operation_fails(
    fault: tuple[str, str, str], library: Path, own_directory: Path
) -> None:
    loop(library, own_directory, "tell", fault, SHARE[fault[0]])


@pytest.mark.soak
@pytest.mark.parametrize("fault", FAULTS, ids=" ".join)
def test_the_promises_hold_whichever_of_all_operations_fails(
    fault: tuple[str, str, str], library: Path, own_directory: Path
) -> None:
    loop(library, own_directory, "tell", fault, 1.0)


@pytest.mark.parametrize("fault", FAULTS[:1] + FAULTS[2:4], ids=" ".join)
def test_a_ledger_that_could_not_be_made_is_made_by_the_next_start(
    fault: tuple[str, str, str], library: Path, own_directory: Path
) -> None:
    loop(library, own_directory, "open", fault, SHARE[fault[0]])


# Power cuts


HAS = {  # what is true of a record from then on
    "recorded": lambda row: True,
    "released": lambda row: row["owner"] is None or row["state"] == "running",
    "claimed": lambda row: row["claim"] >= 1,
    "succeeded": lambda row: row["state"] == "succeeded",
    "forgotten": lambda row: False,
}


class PowerCuts:
    """What a busy ledger's disk has kept, for any moment at which its power went."""

    def __init__(self, library: Path, folder: Path, *what: object, seed: int) -> None:
        disk.run(library, "tests.failures.on_a_dying_disk", *what, seed, cwd=folder)
        self._folder = folder
        self._diary = disk.read_diary(folder / "diary")
        self._chance = Random(seed)
        self.syncs_failed = any(entry.op is Op.LOST for entry in self._diary)
        self.tried = self.broken = self.forgotten = 0

    def cut(self, times: int) -> None:
        """Cut the power at so many moments, and count how often a promise was broken."""
        self._cut(self._chance.choices(range(len(self._diary) + 1), k=times))

    def cut_when_forgotten(self, times: int) -> None:
        """When something was forgotten, and nothing has been written since."""
        moments = [at + 1 for at, entry in enumerate(self._diary) if b"forgotten" in entry.data]
        self._cut(moments * times)

    def _cut(self, moments: list[int]) -> None:
        promises: dict[str, str] = {}
        platters = {1: Platter((self._folder / "first.db").read_bytes()), 2: Platter()}
        for moment, entry in enumerate([*self._diary, None]):
            for _ in range(moments.count(moment)):
                self._look(platters, promises)
            if entry is None:
                break
            if entry.op is Op.NOTE:
                promises |= json.loads(entry.data)
            else:
                platters[entry.file].take(entry, self._chance)

    def _look(self, platters: dict[int, Platter], promises: dict[str, str]) -> None:
        left = self._folder / "left" / LEDGER
        left.parent.mkdir(exist_ok=True)
        for suffix, file in (("", 1), ("-wal", 2), ("-shm", 0)):
            path = Path(f"{left}{suffix}")
            path.unlink(missing_ok=True)
            if file:
                path.write_bytes(platters[file].after_a_power_cut(self._chance))
        rows = check_file(left)  # whole, at any moment, whatever was promised
        self.tried += len(promises)
        self.broken += sum(not self._kept(what, rows.get(id)) for id, what in promises.items())
        self.forgotten = max(self.forgotten, list(promises.values()).count("forgotten"))

    @staticmethod
    def _kept(what: str, row: sqlite3.Row | None) -> bool:
        return what == "forgotten" if row is None else HAS[what](row)


@pytest.mark.parametrize("unreliable", [0.0, 0.5], ids=["syncs work", "syncs fail now and then"])
def test_what_was_promised_survives_a_power_cut(
    unreliable: float, library: Path, own_directory: Path
) -> None:
    seed = SystemRandom().randrange(10**6)
    print("seed", seed)
    with disk.fast_folder(own_directory) as folder:
        cuts = PowerCuts(library, folder, "work", "full", unreliable, seed=seed)
        cuts.cut(CUTS)
    assert cuts.tried > 1000
    assert cuts.syncs_failed == (unreliable > 0)
    assert (cuts.forgotten > 0) == (unreliable > 0)
    assert cuts.broken == 0


def test_what_was_refused_and_forgotten_does_not_come_back_by_a_power_cut(
    library: Path, own_directory: Path
) -> None:
    """Its frames are whole in the WAL, and were only never synced for sure."""
    with disk.fast_folder(own_directory) as folder:
        for seed in range(3):
            cuts = PowerCuts(library, folder, "refuse", "full", 0.0, seed=seed)
            cuts.cut_when_forgotten(10)
            assert cuts.syncs_failed
            assert cuts.forgotten == 2
            assert cuts.broken == 0


def test_with_durability_normal_a_power_cut_may_take_the_last_promises_but_breaks_nothing(
    library: Path, own_directory: Path
) -> None:
    """And so these power cuts are seen to take what is not synced."""
    with disk.fast_folder(own_directory) as folder:
        cuts = PowerCuts(library, folder, "work", "normal", 0.0, seed=1)
        cuts.cut(CUTS)
    assert 0 < cuts.broken < cuts.tried
