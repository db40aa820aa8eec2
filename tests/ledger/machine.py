"""Lives of a real ledger beside the model: whatever is done in whatever order, both say and hold the same.

Two processes use one store; each has owners, dies, and comes back under another name. What is done together
is posted at once, and so mostly written in one batch: then some order of it must explain what came of it.
"""

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from itertools import chain, permutations, product
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from hypothesis.stateful import RuleBasedStateMachine

from segundo.errors import SegundoError
from segundo.ledger import Ledger
from segundo.record import Record
from tests.ledger.agreement import Divergence, agree
from tests.ledger.deeds import Deed, Deeds
from tests.ledger.model import Model, Process
from tests.ledger.suite import START, Clock, Store


class Said(NamedTuple):
    """What the ledger answered to a deed; of a settle, to one of its settlements."""

    deed: Deed
    answer: Any


class Life(NamedTuple):
    """A process: its ledger and the owners that it has joined."""

    ledger: Ledger
    owners: list[str]


class Machine(RuleBasedStateMachine):
    """Hypothesis draws the rules; `store` says where the ledger is."""

    make_store: Callable[[Path], Store]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.store = type(self).make_store(Path(self.folder.name))
        self.clock = Clock()
        self.model = Model(START)
        self.lives: list[Life] = []
        self.names = 0

    def teardown(self) -> None:
        for life in self.lives:
            self.do(self.store.let_die(life.ledger))
        self.runner.close()
        self.folder.cleanup()

    def do(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    async def new_life(self) -> Life:
        ledger = self.store.ledger(self.clock)
        await ledger.open()
        life = Life(ledger, [])
        for _ in range(1 + self.names % 2):
            await self.join(life)
        return life

    async def join(self, life: Life) -> None:
        owner = self.name("owner")
        await life.ledger.join(owner)
        life.owners.append(owner)
        self.model.processes[owner] = Process()

    def name(self, what: str) -> str:
        self.names += 1
        return f"{what}-{self.names:04}"

    # Deeds, done and compared

    def deeds(self, chance: Random) -> Deeds:
        owners = [owner for life in self.lives for owner in life.owners]
        return Deeds(self.model, chance, owners, self.name)

    def act(self, chance: Random, *deeds: Deed) -> None:
        """Do all of these at once in one process, and look for an order in which the model does the same."""
        ledger = chance.choice(self.lives).ledger
        said, seen, waits = self.do(self.carry_out(ledger, deeds))
        failed = any(isinstance(one.answer, Exception) for one in said)
        alone = failed and len(deeds) > 1  # then each may have had a transaction of its own
        first: Divergence | None = None
        # Each transaction first deletes what was refused, if the loop has got round to asking for it by then:
        # a refused call that was recorded before is claimed by another of the same batch, or is gone.
        orders = chain(permutations(said), permutations(_forgotten_at_once(said)))
        for order, at_once in product(orders, (False, True) if alone else (False,)):
            model = self.model.copy()
            model.seen, model.again = seen, alone
            try:
                for one in order:
                    if at_once:
                        model.take_back()
                    getattr(model, one.deed.verb)(one.answer, **one.deed.args)
                model.take_back()
                model.compare(seen, waits)
            except Divergence as divergence:
                first = first or divergence
            else:
                self.model = model
                return
        assert first is not None
        raise first

    async def carry_out(
        self, ledger: Ledger, deeds: Sequence[Deed]
    ) -> tuple[list[Said], dict[str, Record], Any]:
        answers = await asyncio.gather(
            *(getattr(ledger, deed.verb)(**deed.args) for deed in deeds), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, SegundoError):
                raise answer
        await ledger.release("", [])  # the next transaction, which takes back what was refused
        said = chain(*(_said(deed, answer) for deed, answer in zip(deeds, answers, strict=True)))
        return list(said), *await self.look_at(ledger)

    async def look_at(self, ledger: Ledger) -> tuple[dict[str, Record], Any]:
        """Every record, read past the ledger, and who waits for whom."""
        records = self.store.records()
        return records, await ledger.waits_for(sorted(records))


def _forgotten_at_once(said: Sequence[Said]) -> list[Said]:
    """All forgets of an owner as one: of refused requests, none is to be kept for another's sake."""
    owners: dict[str, list[str]] = {}
    for one in said:
        if one.deed.verb == "forget":
            owners.setdefault(one.deed.args["owner"], []).extend(one.deed.args["ids"])
    forgets = [
        Said(Deed("forget", {"owner": owner, "ids": list(dict.fromkeys(ids))}), None)
        for owner, ids in owners.items()
    ]
    return forgets + [one for one in said if one.deed.verb != "forget"]


def _said(deed: Deed, answer: Any) -> list[Said]:
    """Settlements are ends of their own: each may come before or after what else is done."""
    if deed.verb != "settle":
        return [Said(deed, answer)]
    settlements = deed.args["settlements"]
    agree(len(answer), len(settlements), "how many settlements were answered")
    return [
        Said(Deed("settle", {"settlement": one}), told) for one, told in zip(settlements, answer, strict=True)
    ]
