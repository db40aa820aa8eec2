"""The real ledger and the model live the same lives: each verb, alone or with others, does and says the same.

`make model` lives for MODEL_MINUTES. MODEL_SEED says where it begins; a failure prints it.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import hypothesis
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from segundo.record import Link
from tests.ledger.broken import WAYS
from tests.ledger.conftest import KINDS
from tests.ledger.deeds import Deed
from tests.ledger.lives import Lives
from tests.ledger.suite import PostgresStore, SQLiteStore, Store, after, call
from tests.postgres import Schemas

MINUTES = float(os.environ.get("MODEL_MINUTES") or 10)

# In an ordinary run, each of hundreds of steps; a server takes longer for each.
EXAMPLES = {"sqlite": 16, "postgres": 4}

LIVES = settings(
    stateful_step_count=8,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
BOUNDED = {kind: settings(LIVES, max_examples=n, derandomize=True) for kind, n in EXAMPLES.items()}
ROUND = settings(LIVES, max_examples=20)
SEARCH = settings(LIVES, max_examples=300, derandomize=True, phases=[Phase.generate])


class LivesOnSQLite(Lives):
    @staticmethod
    def make_store(folder: Path) -> Store:
        return SQLiteStore(folder / "l.db", "normal")  # a power loss is not the model's business


class WatchedStore(PostgresStore):
    """Looked at after each step, by one connection."""

    @cached_property
    def connection(self) -> psycopg.Connection[tuple[Any, ...]]:
        return super()._connect()

    @contextmanager
    def _connect(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        with self.connection.transaction():
            yield self.connection


def lives_on_postgres(schemas: Schemas) -> type[Lives]:
    class LivesOnPostgres(Lives):
        store: WatchedStore

        @staticmethod
        def make_store(folder: Path) -> Store:
            return WatchedStore(schemas.take())

        def teardown(self) -> None:
            super().teardown()
            self.store.connection.close()
            schemas.give_back(self.store.url)

    return LivesOnPostgres


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def lives(kind: str, request: pytest.FixtureRequest) -> type[Lives]:
    return LivesOnSQLite if kind == "sqlite" else lives_on_postgres(request.getfixturevalue("schemas"))


def test_no_life_of_a_ledger_differs_from_the_models(kind: str, lives: type[Lives]) -> None:
    run_state_machine_as_test(lives, settings=BOUNDED[kind])


@pytest.mark.model
def test_no_life_of_a_ledger_differs_however_long(lives: type[Lives]) -> None:
    seed = int(os.environ.get("MODEL_SEED") or SystemRandom().randrange(10**6))
    until = time.monotonic() + 60 * MINUTES
    while time.monotonic() < until:
        print(f"MODEL_SEED={seed}")
        run_state_machine_as_test(hypothesis.seed(seed)(lives), settings=ROUND)
        seed += 1


@pytest.mark.model
@pytest.mark.parametrize("way", WAYS)
def test_a_ledger_broken_on_purpose_differs_from_the_model(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    WAYS[way](monkeypatch.setattr)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(LivesOnSQLite, settings=SEARCH)


def test_requests_that_are_forgotten_together_are_forgotten_at_once_and_the_model_knows(
    lives: type[Lives],
) -> None:
    """One by one, what waits for another would be cancelled with that one, and then be gone itself."""
    machine = lives()
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


def test_a_refused_call_is_gone_at_once_or_a_moment_later_and_the_model_knows_both(
    lives: type[Lives],
) -> None:
    """In a batch whose changes are applied one by one, a claim finds what was refused before it, or not."""
    machine = lives()
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
