"""The history of a storm: what clients sent and were answered, what ran and where, and who was killed.

All processes append to one file, one JSON line an event, each line by one `write` on an O_APPEND descriptor:
the lines of several processes never mix, and what was appended survives `kill -9`. Times are CLOCK_MONOTONIC
nanoseconds, which all processes of one host share. A process is named by pid and birth (`processes.py`),
since pids are used again.
"""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError

Kind = Literal["plain", "task", "inline"]  # inline: a call that cannot be recorded, and runs in process
Does = Literal["succeeds", "fails"]
Outcome = Literal["ran", "raised", "cancelled"]


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One call that a request or a task adds: what it does when it is left alone, and what it waits for."""

    call: str
    kind: Kind
    does: Does = "succeeds"
    after: str | None = None
    parent: str | None = None  # the call whose task adds this one
    key: str | None = None
    cancel: bool = False  # somebody will ask to cancel it, and may come too late
    steps: int = 0  # how often its task says how far it is, as "step" of "steps"

    @property
    def recordable(self) -> bool:
        return self.kind != "inline"


@dataclass(frozen=True, slots=True, kw_only=True)
class At:
    """When an event happened."""

    t: int = field(default_factory=time.monotonic_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent(At):
    """A client is about to send a request; `accepts` is the status that keeps its calls, None: none does."""

    request: str
    calls: tuple[PlannedCall, ...]
    accepts: int | None
    event: Literal["sent"] = "sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(At):
    """A client has received a response's status and headers."""

    request: str
    status: int
    event: Literal["answered"] = "answered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened(At):
    """A process has begun to serve a request."""

    request: str
    process: str
    event: Literal["opened"] = "opened"


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed(At):
    """The request is over: its request-scoped dependencies exit, where a real app commits its own work."""

    request: str
    process: str
    event: Literal["closed"] = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Born(At):
    """A process of the app has started, as one of a group that is killed together."""

    process: str
    group: int
    event: Literal["born"] = "born"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(At):
    """A task's own code has begun; `claim` is its record's when it began; `record` is None in process."""

    run: str
    call: str
    process: str
    record: str | None = None
    attempt: int | None = None
    claim: int | None = None
    event: Literal["started"] = "started"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(At):
    """A task's own code has ended."""

    run: str
    outcome: Outcome
    event: Literal["ended"] = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed(At):
    """From `t` on these processes, and all of these groups, may be dead: it is before the signal is sent."""

    processes: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    event: Literal["killed"] = "killed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(At):
    """All of these groups are asked to stop (SIGTERM): from now on they may give up what runs."""

    groups: tuple[int, ...]
    event: Literal["asked"] = "asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vanished(At):
    """A process ended that nobody killed; `t` is when it was last seen alive."""

    process: str
    event: Literal["vanished"] = "vanished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled(At):
    """Until `until` somebody else held the ledger's write lock, or a process of the app was stopped."""

    until: int
    event: Literal["stalled"] = "stalled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage(At):
    """Until `until` these processes were frozen, or cut off from the ledger.

    From `robs` on others may have taken over what they ran; None: it was too short for that.
    """

    processes: tuple[str, ...]
    until: int
    robs: int | None = None
    event: Literal["outage"] = "outage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published(At):
    """A broker has confirmed messages about these records, which were sent from `t` on."""

    records: tuple[str, ...]
    event: Literal["published"] = "published"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered(At):
    """A worker got a message about a record; `dropped`: and there was nothing to be had by it."""

    record: str
    process: str
    dropped: bool = False
    event: Literal["delivered"] = "delivered"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerKilled(At):
    """A broker was killed that had messages about these records, as far as anybody could tell."""

    records: tuple[str, ...]
    event: Literal["broker killed"] = "broker killed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck(At):
    """A blow fell, from `t` until `until`; `hit`: it cut off, delayed or doubled something."""

    blow: str
    hit: bool
    until: int
    event: Literal["struck"] = "struck"


Event = (
    Sent
    | Answered
    | Opened
    | Closed
    | Born
    | Started
    | Ended
    | Killed
    | Asked
    | Vanished
    | Stalled
    | Outage
    | Published
    | Delivered
    | BrokerKilled
    | Struck
)

_line: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def read_event(line: bytes) -> Event | None:
    """None of a line that is empty, or was torn."""
    try:
        return _line.validate_json(line)
    except ValidationError:
        return None


class Journal:
    """Appends events to a history; one per process, safe from any thread."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def append(self, event: Event) -> None:
        # The newline in front keeps a line apart from one that a killed process did not finish.
        line = b"\n" + _line.dump_json(event) + b"\n"
        if os.write(self._descriptor, line) != len(line):
            raise OSError("the history's disk is full: the storm proves nothing")

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class History:
    """Every event that was written whole, by time, and how many lines were torn by a kill."""

    events: tuple[Event, ...]
    torn: int = 0

    @classmethod
    def of(cls, *events: Event, torn: int = 0) -> Self:
        return cls(tuple(sorted(events, key=lambda event: event.t)), torn)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read a history file. A line that is no event was torn: what it would have said had not happened."""
        events: list[Event] = []
        torn = 0
        for line in Path(path).read_bytes().splitlines():
            if not line:
                continue
            event = read_event(line)
            if event is None:
                torn += 1
            else:
                events.append(event)
        return cls.of(*events, torn=torn)
