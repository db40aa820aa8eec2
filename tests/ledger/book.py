"""The rows of the model: its records, and who waits for whom. Each change is looked up by its letter."""

from dataclasses import dataclass, field
from typing import Any

from segundo.record import TRANSITIONS, Record, State
from tests.ledger.agreement import wiped

# Who may do what.
LETTERS = {(row.letter, row.source, row.target, by) for row in TRANSITIONS for by in row.by.split(", ")}


@dataclass
class Book:
    now: float
    records: dict[str, Record] = field(default_factory=dict)
    links: dict[tuple[str, str], str] = field(default_factory=dict)  # (before, after): on_failure

    def waits(self) -> dict[str, list[str]]:
        waits: dict[str, list[str]] = {}
        for before, after in sorted(self.links):
            waits.setdefault(after, []).append(before)
        return waits

    def _is(self, id: str, *states: State) -> bool:
        return id in self.records and self.records[id].state in states

    def _waits(self, id: str) -> bool:
        return any(after == id for _, after in self.links)

    def _change(self, verb: str, letter: str, id: str, **columns: Any) -> Record:
        old = self.records[id]
        new = self.records[id] = wiped(old._replace(**columns))
        assert (letter, old.state, new.state, verb) in LETTERS, f"{verb} {letter}: {old.state} -> {new.state}"
        return new

    def _delete(self, verb: str, letter: str, id: str) -> None:
        assert (letter, self.records.pop(id).state, None, verb) in LETTERS
        self.links = {pair: how for pair, how in self.links.items() if pair[1] != id}
