"""The promises on several hosts, whatever is killed, cut off, frozen or doubled; and that a break is caught.

CHAOS=long sends 20,000 calls for each broker, otherwise about a thousand; CHAOS_SEED draws a storm again.
"""

import os
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom
from typing import Any

import pytest
import redis

from scripts.services import Postgres
from tests.chaos.broken import WAYS
from tests.chaos.hosts import Network, missing
from tests.chaos.servers import BROKERS, Redis
from tests.chaos.storm import BLOWS, Weather
from tests.chaos.trial import storm
from tests.soak.verdict import Verdict

FORMS: dict[str, dict[str, Any]] = {
    "short": {"tasks": 600, "limit": 300.0, "rate": 4.0},
    "long": {"tasks": 20_000, "limit": 1800.0, "rounds": 4, "crowd": 1000, "between": (0.0, 6.0)},
}
FORM = FORMS[os.environ.get("CHAOS", "short")]
TRIED = (
    *(f"hit: {blow}" for blow in (*BLOWS, "stop without a broker")),
    *("children", "… Cancelled", "… Duplicate", "attempts cut off by a kill", "calls that ran again"),
    *("outcomes that came too late", "messages for nothing", "… about records that were published again"),
)

pytestmark = pytest.mark.chaos

Blow = Callable[..., Verdict]


@pytest.fixture(autouse=True)
def needed() -> None:
    lacks = missing()
    if lacks is not None:
        pytest.skip(lacks)
    for service in (Postgres, *BROKERS.values()):
        if service.program() is None:
            pytest.skip(f"{service.name} is not installed: `make services`")


@pytest.fixture
def blow(own_directory: Path, capsys: pytest.CaptureFixture[str]) -> Blow:
    """Run one storm of this weather and say, also when it passes, what it was and what befell it."""

    def blow(**weather: Any) -> Verdict:
        seed = int(os.environ.get("CHAOS_SEED") or SystemRandom().randrange(10**6))
        drawn = Weather(seed=seed, **weather)
        with capsys.disabled():
            print(f"\n{drawn}", flush=True)
            verdict = storm(drawn, own_directory)
            print(verdict.told(most=5), flush=True)
        return verdict

    return blow


def test_hosts_reach_each_other_until_a_link_is_cut_and_when_it_is_healed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with Network("here", "there") as network:
        server = Redis(network["there"], tmp_path / "redis").start()
        with network["here"].inside():
            assert said_to(server.url()) == "an answer"
            network.cut("there")
            assert said_to(server.url()) == "nothing"  # and not that there is nobody
            network.heal("there")
            assert said_to(server.url()) == "an answer"
        server.remove()


def said_to(url: str) -> str:
    client: Any = redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)
    try:
        return "an answer" if client.ping() else "?"
    except redis.exceptions.TimeoutError:
        return "nothing"
    finally:
        client.close()


@pytest.mark.parametrize("broker", BROKERS)
def test_no_promise_breaks_whatever_is_struck(broker: str, blow: Blow) -> None:
    verdict = blow(broker=broker, **FORM)
    assert not verdict.violations, verdict.told()
    assert not verdict.idle(*TRIED)


@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_library_that_is_broken_on_purpose_is_caught(way: str, blow: Blow) -> None:
    broken = WAYS[way]
    verdict = blow(broker="redis", broken=way, blows=broken.blows, **broken.weather)
    assert broken.breaks & verdict.rules, verdict.told()
