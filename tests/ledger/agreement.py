"""When what a ledger says or holds agrees with the model, and the words for when it does not."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from segundo.record import Record


class Divergence(AssertionError):
    """The ledger did or said what the model does not."""


def agree(told: object, expected: object, about: str) -> None:
    if told != expected:
        raise Divergence(f"{about}: the ledger says {told}, the model {expected}")


@dataclass(frozen=True)
class Told:
    """An error in the ledger's own words: only its type is compared, and the record that it names."""

    type: str
    before: frozenset[str] | None = None

    def fits(self, text: str | None) -> bool:
        error = json.loads(text or "{}")
        return error.get("type") == self.type and (self.before is None or error["before"] in self.before)


def agree_on(record: Record, told: Record, about: str) -> Record:
    """The record with the ledger's own words in it, where these agree, and all columns do."""
    error: object = record.error
    if isinstance(error, Told) and error.fits(told.error):
        record = record._replace(error=told.error)
    for column, ours, theirs in zip(Record._fields, record, told, strict=True):
        agree(theirs, ours, f"{column} of {record.id}{about}")
    return record


def urgency(record: Record) -> tuple[int, float, str]:
    return -record.priority, record.run_at, record.id


def agree_on_urgency(told: Sequence[str], due: Sequence[Record], *, one_queue: bool) -> None:
    """Of each queue the most urgent were taken, and all are told in the order of their urgency."""
    agree(list(told), [record.id for record in due if record.id in told], "in which order they were claimed")
    for queue in {None} if one_queue else {record.queue for record in due}:
        lane = [record.id for record in due if queue in (None, record.queue)]
        mine = [id for id in told if id in lane]
        agree(mine, lane[: len(mine)], "which were claimed before others")


def wiped(record: Record) -> Record:
    """What is not to be kept goes with the end of its record."""
    gone = record.wipe is not None and record.state.terminal
    return record._replace(arguments=None, carried=None) if gone else record
