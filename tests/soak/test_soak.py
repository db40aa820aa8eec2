"""The promises under `kill -9`, and the proof that a library which breaks them would be caught.

SOAK=long kills 30 times, otherwise 6; SOAK_SEED draws a storm again that failed.
"""

import os
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom
from typing import Any

import pytest

from tests.soak import processes
from tests.soak.broken import WAYS
from tests.soak.storm import Weather, storm
from tests.soak.verdict import Verdict

KILLS = 30 if os.environ.get("SOAK") == "long" else 6
TRIED = ("accepted", "refused", "records", "attempts cut off by a kill", "calls that ran again", "kills")

pytestmark = pytest.mark.skipif(not processes.available, reason="the storm finds processes in /proc")


Blow = Callable[..., Verdict]


@pytest.fixture
def blow(own_directory: Path) -> Blow:
    """Run one storm of this weather and say what it was and what it tried (`-s` shows it when it passes)."""

    def blow(**weather: Any) -> Verdict:
        seed = int(os.environ.get("SOAK_SEED") or SystemRandom().randrange(10**6))
        drawn = Weather(seed=seed, **weather)
        print(f"\n{drawn}", flush=True)
        verdict = storm(drawn, own_directory)
        print(verdict.told(most=5), flush=True)
        return verdict

    return blow


@pytest.mark.soak
@pytest.mark.parametrize(("workers", "beside"), [(1, 0), (4, 0), (2, 2)])
def test_no_promise_breaks_under_kill_9(workers: int, beside: int, blow: Blow) -> None:
    verdict = blow(kills=KILLS, cuts=1, workers=workers, beside=beside)
    assert not verdict.violations, verdict.told()
    assert not verdict.idle(*TRIED)


@pytest.mark.soak
@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_library_broken_on_purpose_is_caught(way: str, blow: Blow) -> None:
    broken = WAYS[way]
    verdict = blow(broken=way, **broken.weather)
    assert broken.breaks <= verdict.rules, verdict.told()


@pytest.mark.timeout(120)
def test_no_promise_breaks_under_one_kill(blow: Blow) -> None:
    verdict = blow(kills=1, between=(1.0, 2.0), stalls=0.0, deploys=0.0, drain=30.0)
    assert not verdict.violations, verdict.told()
    assert not verdict.idle("accepted", "refused", "records", "attempts", "kills")
