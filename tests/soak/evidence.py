"""A history and a ledger side by side: each request with its answer, each call with its rows and attempts."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from tests.soak.history import (
    Answered,
    Asked,
    Born,
    Closed,
    Ended,
    History,
    Killed,
    Opened,
    Outage,
    PlannedCall,
    Sent,
    Stalled,
    Started,
    Vanished,
)
from tests.soak.rows import Row

E = TypeVar("E")

FOREVER = 2**63
SECOND = 1_000_000_000
STORED = 5 * SECOND  # an outcome may wait that long for its ledger, and the claim is held until then


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a call's own code; its process may have died at `death`, and was asked to stop `asked`.

    `robbed`: from then on others may have had its record, for its process was frozen or cut off.
    """

    started: Started
    ended: Ended | None
    death: int | None
    asked: int | None  # to stop
    robbed: int | None = None

    @property
    def outcome(self) -> str:
        return "cut off" if self.ended is None else self.ended.outcome

    @property
    def over(self) -> int:
        """The moment from which it surely no longer ran, or no longer held its claim, as far as is known."""
        robbed = FOREVER if self.robbed is None else self.robbed
        if self.ended is not None:
            return min(self.ended.t, robbed)
        return min(FOREVER if self.death is None else max(self.death, self.started.t), robbed)

    def lost_by(self, t: int) -> bool:
        """Whether its process was dead by then, or may have been taken for dead."""
        return any(moment is not None and moment <= t for moment in (self.death, self.robbed))


@dataclass(frozen=True, slots=True)
class Request:
    """One request: what was sent, what came back, who served it, and when it was over."""

    sent: Sent
    answered: Answered | None
    opened: Opened | None
    closed: Closed | None

    @property
    def name(self) -> str:
        return self.sent.request

    @property
    def accepted(self) -> bool:
        """The client was told that its calls are kept."""
        return self.answered is not None and self.answered.status == self.sent.accepts

    @property
    def refused(self) -> bool:
        """The client was told otherwise, or the endpoint raises whatever happens."""
        return self.sent.accepts is None or (self.answered is not None and not self.accepted)

    @property
    def recordable(self) -> list[PlannedCall]:
        """What its endpoint adds; what tasks add comes later."""
        return [call for call in self.sent.calls if call.recordable and call.parent is None]


class Evidence:
    """The history and the rows, indexed; nothing here judges."""

    def __init__(self, history: History, rows: Sequence[Row]) -> None:
        self.history = history
        self.rows = rows

    def of(self, kind: type[E]) -> Iterator[E]:
        return (event for event in self.history.events if isinstance(event, kind))

    @cached_property
    def requests(self) -> dict[str, Request]:
        answers = {event.request: event for event in self.of(Answered)}
        opened = {event.request: event for event in self.of(Opened)}
        closed = {event.request: event for event in self.of(Closed)}
        return {
            sent.request: Request(
                sent, answers.get(sent.request), opened.get(sent.request), closed.get(sent.request)
            )
            for sent in self.of(Sent)
        }

    @cached_property
    def calls(self) -> dict[str, tuple[Request, PlannedCall]]:
        return {
            call.call: (request, call) for request in self.requests.values() for call in request.sent.calls
        }

    @cached_property
    def rows_of(self) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            found[row.call].append(row)
        return dict(found)

    @cached_property
    def killed(self) -> dict[str, int]:
        """When each process that was killed may have died at the earliest."""
        found: dict[str, int] = {}
        for killed in self.of(Killed):
            for process in (*killed.processes, *self._members(killed.groups, until=killed.t)):
                found.setdefault(process, killed.t)
        return found

    @cached_property
    def asked(self) -> dict[str, int]:
        """When each process that was asked to stop was asked."""
        found: dict[str, int] = {}
        for asked in self.of(Asked):
            # A worker that its supervisor is just starting is born, and stops, a little later.
            for process in self._members(asked.groups, until=asked.t + 30 * SECOND):
                found.setdefault(process, asked.t)
        return found

    @property
    def stopped(self) -> set[str]:
        """Who was killed or asked to stop."""
        return self.killed.keys() | self.asked.keys()

    @property
    def born(self) -> set[str]:
        return {born.process for born in self.of(Born)}

    def _members(self, groups: tuple[int, ...], *, until: int) -> list[str]:
        # A group's number may be used again: who was born later is of another one.
        return [born.process for born in self.of(Born) if born.group in groups and born.t <= until]

    @cached_property
    def deaths(self) -> dict[str, int]:
        """The same for every process that died, killed or not."""
        return {vanished.process: vanished.t for vanished in self.of(Vanished)} | self.killed

    @cached_property
    def attempts(self) -> dict[str, list[Attempt]]:
        """The attempts of each call, in the order they started."""
        ends = {event.run: event for event in self.of(Ended)}
        found: dict[str, list[Attempt]] = defaultdict(list)
        for started in self.of(Started):
            process, ended = started.process, ends.get(started.run)
            found[started.call].append(
                Attempt(
                    started,
                    ended,
                    self.deaths.get(process),
                    self.asked.get(process),
                    self._robbed(started, ended),
                )
            )
        return dict(found)

    def _robbed(self, started: Started, ended: Ended | None) -> int | None:
        """When its claim may have been lost by an outage: it was held since before it started, and is held
        until the outcome is stored."""
        last = FOREVER if ended is None else ended.t + STORED
        moments = [
            outage.robs
            for outage in self._outages.get(started.process, ())
            if outage.robs is not None and outage.t <= last and started.t <= outage.until + STORED
        ]
        return min(moments, default=None)

    @cached_property
    def _outages(self) -> dict[str, list[Outage]]:
        found: dict[str, list[Outage]] = defaultdict(list)
        for outage in self.of(Outage):
            for process in outage.processes:
                found[process].append(outage)
        return dict(found)

    @property
    def robberies(self) -> list[int]:
        return [outage.robs for outage in self.of(Outage) if outage.robs is not None]

    def row(self, call: str) -> Row | None:
        return next(iter(self.rows_of.get(call, ())), None)

    def serving_ended(self, request: Request) -> int:
        """When the request was over: closed, or its process dead; FOREVER if neither is known."""
        if request.closed is not None:
            return request.closed.t
        if request.opened is not None:
            return self.deaths.get(request.opened.process, FOREVER)
        return FOREVER

    def unlearned(self, request: Request, *, within: int = SECOND) -> bool:
        """Whether the process died too soon after it answered 503 to learn its commit's outcome.

        This is the one exception that the guarantees state. A stall before the death stops the clock.
        """
        if request.answered is None or request.answered.status != 503 or request.opened is None:
            return False
        death = self.deaths.get(request.opened.process)
        if death is None:
            return False
        stalls = [min(stall.until, death) for stall in self.of(Stalled) if stall.t <= death]
        return death - max([request.answered.t, *stalls]) <= within
