"""The promises under `kill -9`, and the proof that a library which breaks them would be caught.

SOAK=long kills 30 times, otherwise 6; SOAK_SEED draws a storm again that failed.
"""

import os
from pathlib import Path
from random import SystemRandom

import pytest

from tests.soak import processes
from tests.soak.broken import WAYS
from tests.soak.storm import Weather, storm
from tests.soak.verdict import Verdict

KILLS = 30 if os.environ.get("SOAK") == "long" else 6
TRIED = ("accepted", "refused", "records", "attempts cut off by a kill", "calls that ran again", "kills")

pytestmark = pytest.mark.skipif(not processes.available, reason="the storm finds processes in /proc")


def blow(folder: Path, weather: Weather) -> Verdict:
    print(f"\n{weather}")  # with the seed; pytest shows it when the test fails
    verdict = storm(weather, folder)
    print(verdict.told())
    return verdict


def seed() -> int:
    return int(os.environ.get("SOAK_SEED") or SystemRandom().randrange(10**6))


@pytest.mark.soak
@pytest.mark.parametrize(("workers", "beside"), [(1, 0), (4, 0), (2, 2)])
def test_no_promise_breaks_under_kill_9(workers: int, beside: int, own_directory: Path) -> None:
    verdict = blow(own_directory, Weather(kills=KILLS, workers=workers, beside=beside, seed=seed()))
    assert not verdict.violations, verdict.told()
    assert not verdict.idle(*TRIED)


@pytest.mark.soak
@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_library_broken_on_purpose_is_caught(way: str, own_directory: Path) -> None:
    broken = WAYS[way]
    verdict = blow(own_directory, Weather(seed=seed(), broken=way, **broken.weather))
    assert broken.breaks <= verdict.rules, verdict.told()


@pytest.mark.timeout(120)
def test_no_promise_breaks_under_one_kill(own_directory: Path) -> None:
    verdict = blow(own_directory, Weather(kills=1, seed=seed(), between=(1.0, 2.0), stalls=0.0))
    assert not verdict.violations, verdict.told()
    assert not verdict.idle("accepted", "refused", "records", "attempts", "kills")
