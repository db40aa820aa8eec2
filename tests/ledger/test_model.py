"""The real ledger and the model live the same lives: each verb, alone or with others, does and says the same.

`make model` lives for MODEL_MINUTES. MODEL_SEED says where it begins; a failure prints it.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random, SystemRandom

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from segundo.record import Link
from tests.ledger.broken import WAYS
from tests.ledger.deeds import Deed
from tests.ledger.lives import Lives
from tests.ledger.suite import SQLiteStore, Store, after, call

MINUTES = float(os.environ.get("MODEL_MINUTES") or 10)
# What a power loss would take is not the model's business.
STORES: dict[str, Callable[[Path], Store]] = {"sqlite": lambda folder: SQLiteStore(folder / "l.db", "normal")}

LIVES = settings(
    stateful_step_count=8,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
BOUNDED = settings(LIVES, max_examples=16, derandomize=True)
ROUND = settings(LIVES, max_examples=100)
SEARCH = settings(LIVES, max_examples=300, derandomize=True, phases=[Phase.generate])


def lives_on(kind: str) -> type[Lives]:
    return type(f"LivesOn{kind}", (Lives,), {"make_store": staticmethod(STORES[kind])})


@pytest.mark.parametrize("kind", STORES)
def test_no_life_of_a_ledger_differs_from_the_models(kind: str) -> None:
    run_state_machine_as_test(lives_on(kind), settings=BOUNDED)


@pytest.mark.model
@pytest.mark.parametrize("kind", STORES)
def test_no_life_of_a_ledger_differs_however_long(kind: str) -> None:
    seed = int(os.environ.get("MODEL_SEED") or SystemRandom().randrange(10**6))
    until = time.monotonic() + 60 * MINUTES
    while time.monotonic() < until:
        print(f"MODEL_SEED={seed}")
        run_state_machine_as_test(hypothesis.seed(seed)(lives_on(kind)), settings=ROUND)
        seed += 1


@pytest.mark.model
@pytest.mark.parametrize("way", WAYS)
def test_a_ledger_broken_on_purpose_differs_from_the_model(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    WAYS[way](monkeypatch.setattr)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(lives_on("sqlite"), settings=SEARCH)


@pytest.mark.parametrize("kind", STORES)
def test_requests_that_are_forgotten_together_are_forgotten_at_once_and_the_model_knows(kind: str) -> None:
    """One by one, what waits for another would be cancelled with that one, and then be gone itself."""
    machine = lives_on(kind)()
    try:
        machine.lives = [machine.do(machine.new_life())]
        (owner, *_) = machine.lives[0].owners
        first = call(id=machine.name("call"), held=True)
        behind = [call(id=machine.name("call"), held=False, after=(Link(first.id, "cancel"),)) for _ in "ab"]
        machine.act(Random(0), Deed("record", {"calls": [first, *behind], "owner": owner}))
        machine.act(
            Random(0),
            *(Deed("forget", {"owner": owner, "ids": [first.id, waiting.id]}) for waiting in behind),
        )
    finally:
        machine.teardown()


@pytest.mark.parametrize("kind", STORES)
def test_a_refused_call_is_gone_at_once_or_a_moment_later_and_the_model_knows_both(kind: str) -> None:
    """In a batch whose changes are applied one by one, a claim finds what was refused before it, or not."""
    machine = lives_on(kind)()
    try:
        machine.lives = [machine.do(machine.new_life())]
        (owner, *_) = machine.lives[0].owners
        for _ in range(10):
            known = call(id=machine.name("call"))
            machine.act(Random(0), Deed("record", {"calls": [known], "owner": owner}))
            machine.act(
                Random(0),
                Deed("record", {"calls": [known._replace(after=after("nobody"))], "owner": owner}),
                Deed("cancel", {"id": "nobody"}),
                Deed("claim", {"owner": owner, "ids": [known.id], "limit": 1}),
            )
    finally:
        machine.teardown()
