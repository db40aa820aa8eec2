"""Every combination of ledger and executor, started once for all tests."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.celery.stage import a_broker
from tests.cli.conftest import inside
from tests.cli.terminal import Answer
from tests.conformance.combinations import COMBINATIONS, Combination
from tests.conformance.place import Place
from tests.postgres import FAST, a_server

__all__ = ["inside"]  # a fixture

HERE = Path(__file__).parent
LAST = ("test_crashes.py", "test_stops.py")  # they wait for what was begun before the others; they restart


def slug(combination: Combination) -> str:
    return combination.name.lower().replace(", ", "-")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "combination" in metafunc.fixturenames:
        short = metafunc.definition.get_closest_marker("short") is not None
        chosen = [one for one in COMBINATIONS if short or not one.short]
        metafunc.parametrize(
            "combination",
            chosen,
            ids=map(slug, chosen),
        )


class ByLane(LoadScopeScheduling):
    """To each process of pytest-xdist a lane, whole."""

    def _split_scope(self, nodeid: str) -> str:
        (lane,) = {one.lane for one in COMBINATIONS if slug(one) in nodeid} or {"no"}
        return lane


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    return ByLane(config, log) if config.option.markexpr == "conformance" else None


def conforming(item: pytest.Item) -> bool:
    return item.path.parent == HERE and "place" in getattr(item, "fixturenames", ())


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    for item in filter(conforming, items):  # before pytest chooses by marker
        item.add_marker("conformance")
    yield
    # After they were put into random order.
    items.sort(
        key=lambda item: LAST.index(item.path.name) if conforming(item) and item.path.name in LAST else -1
    )


def combination_of(item: pytest.Item) -> Combination:
    assert isinstance(item, pytest.Function)
    combination: Combination = item.callspec.params["combination"]
    return combination


class Lanes:
    """The places of this process. All that are wanted of one lane are started at the first test in it."""

    def __init__(self, wanted: Sequence[Combination], stack: ExitStack) -> None:
        self._wanted = wanted
        self._stack = stack
        self._places: dict[str, Place] = {}
        self._postgres: str | None = None

    def place(self, combination: Combination) -> Place:
        if combination.name not in self._places:
            lane = [one for one in self._wanted if one.lane == combination.lane]
            made = [Place(one, self._folder(), self._environment(one)) for one in lane]
            with ThreadPoolExecutor() as threads:
                for place in made:
                    self._stack.callback(place.kill)
                list(threads.map(Place.start, made))
            self._places |= {place.combination.name: place for place in made}
        return self._places[combination.name]

    def _folder(self) -> Path:
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="segundo-test-")))

    def _environment(self, combination: Combination) -> dict[str, str]:
        found: dict[str, str] = {}
        if combination.ledger == "postgres":
            if self._postgres is None:
                self._postgres = self._stack.enter_context(a_server(*FAST)).url()
            found["SEGUNDO_LEDGER"] = f"{self._postgres}?schema={slug(combination).replace('-', '_')}"
        if combination.broker is not None:
            found["SEGUNDO_BROKER"] = self._stack.enter_context(a_broker(combination.broker)).url()
        return found


@pytest.fixture(scope="session")
def lanes(request: pytest.FixtureRequest) -> Iterator[Lanes]:
    wanted = {
        combination_of(item).name: combination_of(item)
        for item in request.session.items
        if item.get_closest_marker("conformance")
    }
    with ExitStack() as stack:
        yield Lanes(list(wanted.values()), stack)


@pytest.fixture
def place(lanes: Lanes, combination: Combination) -> Place:
    """The app at work on a ledger and an executor."""
    return lanes.place(combination)


NUMBERS = count(1)


@pytest.fixture
def name() -> str:
    """One that no other test has."""
    return f"name-{next(NUMBERS)}"


@pytest.fixture
def segundo(
    place: Place, inside: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Answer]:
    """`segundo …` at a terminal beside the app."""
    monkeypatch.setenv("SEGUNDO_LEDGER", place.env.get("SEGUNDO_LEDGER", str(place.folder / "segundo.db")))
    return inside
