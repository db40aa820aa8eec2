"""What is done to a ledger, drawn by chance from what there is: a verb, and the arguments of it."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

from segundo.ledger import Settlement
from segundo.record import LIVE, Call, Link, State, Wipe
from tests.ledger.model import Model

UNKNOWN = "nobody"
FAILURE = '{"type": "ValueError"}'
FOR_LATER = 10.0  # seconds
AGES = [None, None, 0.0, 15.0]
LEASE = 12.0  # seconds, of a message to a broker: the same for all
LOST = [None, None, None, 0.0, 5.0, 30.0]  # seconds since which a broker has forgotten
QUEUES = [None, None, None, ["mails"], ["files", "mails"]]
ENDS = [State.SUCCEEDED, State.SUCCEEDED, State.QUEUED, State.QUEUED, State.FAILED, State.CANCELLED]


class Deed(NamedTuple):
    """A verb of the ledger, and the arguments that the model's method takes too."""

    verb: str
    args: dict[str, Any]


class Deeds:
    """Draws deeds for a model, whose processes' living `owners` do them. `name` makes a new id."""

    def __init__(
        self, model: Model, chance: Random, owners: Sequence[str], name: Callable[[str], str]
    ) -> None:
        self.records = model.records
        self.chance = chance
        self.owners = owners
        self.name = name

    def some(self, *states: State) -> str:
        """The id of a record, mostly of one in these states."""
        records = sorted(self.records)
        fitting = [id for id in records if self.records[id].state in states]
        if fitting and self.chance.random() < 0.85:
            return self.chance.choice(fitting)
        return self.chance.choice([*records, UNKNOWN])

    def few(self, *states: State) -> list[str]:
        ids = [self.some(*states) for _ in range(self.chance.randint(1, 3))]
        return list(dict.fromkeys(ids))

    def owner(self, holder: str | None = None) -> str:
        """A living process, mostly the one that holds something."""
        if holder in self.owners and self.chance.random() < 0.8:
            return holder
        return self.chance.choice(self.owners)

    def holder(self, ids: Sequence[str]) -> str | None:
        holders = [self.records[id].owner for id in ids if id in self.records]
        return holders[0] if holders else None

    # Calls

    def record(self) -> Deed:
        return Deed("record", {"calls": self.calls(self.chance.randint(1, 3)), "owner": self.owner()})

    def record_again(self) -> Deed:
        """What was recorded already, perhaps with more to wait for."""
        (call,) = self.calls(1)
        id = self.some()
        known = self.records.get(id)
        again = call if known is None else call._replace(id=id, task=known.task, key=known.key)
        return Deed("record", {"calls": [again], "owner": self.owner()})

    def calls(self, number: int) -> list[Call]:
        calls: list[Call] = []
        for _ in range(number):
            calls.append(self._call(calls))
        return calls

    def _call(self, earlier: Sequence[Call]) -> Call:
        choice = self.chance.choice
        ids = [self.some(*LIVE) for _ in range(choice([0, 0, 1, 1, 2]))]
        if earlier and choice([True, False]):
            ids.append(choice(earlier).id)
        after = tuple(Link(id, choice(["cancel", "run"])) for id in dict.fromkeys(ids) if id in self.records)
        return Call(
            id=self.name("call"),
            task=choice(["mails:send", "mails:sort"]),
            arguments="{}",
            queue=choice(["mails", "mails", "files"]),
            priority=choice([5, 5, 0, 9]),
            delay=choice([0.0, 0.0, 0.0, FOR_LATER]),
            attempts=choice([1, 2, None]),
            crash_limit=choice([0, 1, 1, 3]),
            key=choice([None, None, "a", "b"]),
            retention=choice([None, 0.0, 15.0]),
            after=after if choice([True] * 9 + [False]) else (*after, Link(UNKNOWN)),
            held=choice([True, False]),
            timeout=choice([None, 5.0]),
            carried=choice([None, '{"tenant": "x"}']),
            wipe=choice([None, *Wipe]),
        )

    # The request ends

    def release(self) -> Deed:
        ids = self.few(State.WAITING)
        return Deed("release", {"owner": self.owner(self.holder(ids)), "ids": ids})

    def forget(self) -> Deed:
        ids = self.few(State.WAITING)
        return Deed("forget", {"owner": self.owner(self.holder(ids)), "ids": ids})

    def start(self) -> Deed:
        records = [self.records[id] for id in self.few(State.WAITING) if id in self.records]
        owner = self.owner(records[0].owner if records else None)
        return Deed("start", {"owner": owner, "records": records, "limit": self.chance.randint(0, 3)})

    # Attempts

    def claim(self) -> Deed:
        choice = self.chance.choice
        how = {
            "limit": choice([0, 1, 2, 4]),
            "queues": choice(QUEUES),
            "suspect": choice([True, True, False]),
        }
        ids = self.few(State.QUEUED) if choice([True, False, False]) else None
        return Deed("claim", {"owner": self.owner(), "ids": ids, **how})

    def settle(self) -> Deed:
        return Deed("settle", {"settlements": [self._settlement() for _ in range(self.chance.randint(1, 2))]})

    def _settlement(self) -> Settlement:
        choice = self.chance.choice
        id = self.some(State.RUNNING)
        state = choice(ENDS)
        claim = self.records[id].claim if id in self.records else 1
        progress = choice([None, None, None, '{"done": 2}'])
        settlement = Settlement(id, claim + choice([0, 0, 0, 0, 0, -1, 1]), state, progress=progress)
        if state is State.SUCCEEDED:
            children = self.calls(choice([0, 0, 0, 1, 2]))
            return settlement._replace(result=choice([None, None, '"done"']), children=tuple(children))
        reason, error = choice([("ValueError", FAILURE), (None, None)])
        settlement = settlement._replace(reason=reason, error=error)
        again = {"delay": choice([0.0, FOR_LATER]), "counted": choice([True, True, False])}
        return settlement._replace(**again) if state is State.QUEUED else settlement

    def progress(self) -> Deed:
        id = self.some(State.RUNNING)
        claim = self.records[id].claim if id in self.records else 1
        stale = self.chance.choice([0, 0, 1])
        return Deed("progress", {"id": id, "claim": claim - stale, "progress": str(self.chance.random())})

    def beat(self) -> Deed:
        owner = self.owner(self.holder([self.some(State.RUNNING)]))
        held = {id for id, record in self.records.items() if record.owner == owner}
        running = {id for id in held if self.chance.random() < 0.8} | {self.some(State.RUNNING)}
        return Deed("beat", {"owner": owner, "running": sorted(running)})

    # From outside

    def publish(self) -> Deed:
        choice = self.chance.choice
        how = {"window": choice([1, 2, 4, 100]), "limit": choice([1, 2, 100]), "lost": choice(LOST)}
        queues, but = choice(QUEUES), choice([[], [], ["files"]])
        return Deed("publish", {"queues": queues, "but": but, "lease": LEASE, **how})

    def cancel(self) -> Deed:
        return Deed("cancel", {"id": self.some(*LIVE)})

    def prune(self) -> Deed:
        return Deed("prune", {"older_than": self.chance.choice(AGES)})

    def prune_a_few(self) -> Deed:
        return Deed("prune", {"older_than": self.chance.choice(AGES), "limit": self.chance.randint(0, 2)})

    def rescue(self) -> Deed:
        return Deed("rescue", {})


# What can be done together with others: all of which the answers tell what came of it.
TOGETHER = [
    *(Deeds.record, Deeds.record_again, Deeds.release, Deeds.forget, Deeds.start),
    *(Deeds.claim, Deeds.settle, Deeds.progress, Deeds.beat, Deeds.cancel, Deeds.prune, Deeds.rescue),
    Deeds.publish,
]
