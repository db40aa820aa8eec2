"""Reads a history while it is written: what runs now and where, and which messages are on their way."""

import threading
from collections.abc import Iterable
from pathlib import Path

from tests.soak.history import Born, Delivered, Ended, Event, Published, Started, read_event


class Follower:
    """As of its last look. Safe from any thread."""

    def __init__(self, history: Path) -> None:
        self.running: dict[str, Started] = {}
        self.born: dict[str, int] = {}  # each process, and its group
        self.waiting: set[str] = set()  # published, and not yet delivered
        self.published: dict[str, int] = {}  # when the last message about each record was sent
        self.dropped = 0  # messages
        self.started: dict[str, None] = {}  # ids of records, in the order of their first start
        self._delivered: dict[str, int] = {}
        self._file = history.open("rb")
        self._rest = b""
        self._lock = threading.Lock()

    def look(self) -> "Follower":
        with self._lock:
            *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
            for line in lines:
                event = read_event(line)
                if event is not None:
                    self._note(event)
        return self

    def running_in(self, processes: Iterable[str]) -> list[Started]:
        wanted = set(processes)
        with self._lock:
            return [started for started in self.running.values() if started.process in wanted]

    def close(self) -> None:
        self._file.close()

    def _note(self, event: Event) -> None:
        match event:
            case Started():
                self.running[event.run] = event
                if event.record is not None:
                    self.started[event.record] = None
            case Ended():
                self.running.pop(event.run, None)
            case Born():
                self.born[event.process] = event.group
            case Published():
                self.published.update(dict.fromkeys(event.records, event.t))
                late = (id for id in event.records if self._delivered.get(id, 0) < event.t)
                self.waiting.update(late)
            case Delivered(dropped=True):
                self.dropped += 1
            case Delivered():
                self._delivered[event.record] = event.t
                self.waiting.discard(event.record)
            case _:
                pass
