"""Copies of messages: the broker's library makes one of each kind, which takes as long as some ten copies."""

import logging
from collections.abc import Callable
from typing import NamedTuple

from segundo.record import Record

logger = logging.getLogger("segundo")

KINDS = 1000  # that are remembered: a kind for each task, queue and priority


class Message(NamedTuple):
    """What the library sends about a record: `text`, to `place`. `marks`: what is in no other message."""

    place: str
    text: bytes
    marks: tuple[bytes, ...]

    def copied(self, marks: tuple[bytes, ...]) -> "Message":
        text = self.text
        for mine, theirs in zip(self.marks, marks, strict=True):
            text = text.replace(mine, theirs)
        return Message(self.place, text, marks)


class Samples:
    """`make`: has the library make a message. `mark`: gives the marks of a new message about this id.

    Only where a copy is what the library would make, byte for byte, it is taken: a library that does
    otherwise than we know is left to do it.
    """

    def __init__(self, make: Callable[[Record], Message], mark: Callable[[str], tuple[bytes, ...]]) -> None:
        self._make = make
        self._mark = mark
        self._known: dict[tuple[str, int, str, int], Message | None] = {}

    def copy(self, record: Record) -> Message | None:
        """The message about this record; None: the library is to make it."""
        # As AMQP says the length of each text, an id is put into the place of one that is as long.
        kind = (record.queue, record.priority, record.printable_task, len(record.id))
        if kind not in self._known:
            if len(self._known) >= KINDS:
                self._known.clear()
            self._known[kind] = self._sample(record)
        sample = self._known[kind]
        return sample and sample.copied(self._mark(record.id))

    def _sample(self, record: Record) -> Message | None:
        try:
            one, other = (self._make(record._replace(id=letter * len(record.id))) for letter in "yz")
        except Exception as error:  # what is wrong shows when the library sends it
            logger.debug("no message is copied: %s: %s", type(error).__name__, error)
            return None
        return one if one.copied(other.marks) == other else None
