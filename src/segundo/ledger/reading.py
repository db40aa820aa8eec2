"""What is read of a ledger in one way, whoever reads: the process that writes it, or a visitor."""

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, ClassVar

from segundo.ledger.transaction import to_records
from segundo.record import Record, State


class Reading(ABC):
    """Reads by the statements of one store."""

    sql: ClassVar[ModuleType]  # the same names in each store, and the same parameters

    @abstractmethod
    def _rows(self, statement: str, *parameters: object, **named: object) -> list[tuple[Any, ...]]:
        """All that a statement finds; its parameters by position or by name. Raises LedgerUnavailable."""

    def _listed(self, ids: Iterable[str]) -> str:
        """Ids as the one parameter that a list is."""
        return json.dumps(list(ids))

    def _with_ids(self, ids: Iterable[str]) -> list[Record]:
        return to_records(self._rows(self.sql.SELECT_IDS, self._listed(ids)))

    def _before(self, ids: Iterable[str]) -> dict[str, list[str]]:
        """Of each of these records that waits for others: the ids of those that have not ended."""
        waiting: dict[str, list[str]] = {}
        for after, before in self._rows(self.sql.WAITS_FOR, self._listed(ids)):
            waiting.setdefault(after, []).append(before)
        return waiting

    def _first_due(self, queues: Iterable[str]) -> float | None:
        """When the first queued record of these queues may be claimed, or could have been."""
        dues = [self._rows(self.sql.NEXT_DUE, queue=queue)[0][0] for queue in queues]
        return min((due for due in dues if due is not None), default=None)

    def _queues(self) -> set[str]:
        """Those that have something queued."""
        return {name for names in (self.sql.QUEUES, self.sql.SUSPECT_QUEUES) for (name,) in self._rows(names)}


class Reader(Reading):
    """Reads beside the writer, never on an event loop: all but `close` is called in `threads`.

    `readers`: how many reads there may be at the same time.
    """

    def __init__(self, readers: int) -> None:
        self.threads = ThreadPoolExecutor(readers, thread_name_prefix="segundo-reader")

    @abstractmethod
    def close(self) -> None:
        """Wait for the reads that have begun, and let go of the store."""

    @abstractmethod
    def _now(self) -> float:
        """The ledger's time."""

    def select(
        self, *, ids: Sequence[str] | None, state: State | None, limit: int, before: str | None
    ) -> Sequence[Record]:
        if ids is not None:
            return self._with_ids(ids)
        return to_records(self._rows(self.sql.SELECT, state=state, limit=limit, before=before))

    def waits_for(self, ids: Sequence[str]) -> dict[str, list[str]]:
        return self._before(ids)

    def glance(self, ids: Sequence[str]) -> Sequence[tuple[object, ...]]:
        """What a watch compares of each of these records."""
        return self._rows(self.sql.GLANCE, self._listed(ids))

    def next_due(self, queues: Collection[str] | None, but: Collection[str]) -> float | None:
        names = self._queues() if queues is None else queues
        due = self._first_due(name for name in names if name not in but)
        return None if due is None else max(0.0, due - self._now())
