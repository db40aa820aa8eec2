"""One combination at work: the app's server, what runs its records, and a client that sees both."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from examples.demo.servers import waiting_in
from tests.celery.stage import CeleryWorker
from tests.conformance.combinations import Combination
from tests.support import ROOT, Server, wait_until

KEY = "4711"  # of the app's operator
SLOTS = 3  # records at once, on every executor
PATIENCE = 30.0
GRACE = "2s"
QUEUES = ("default", "other")
ENDED = ("succeeded", "failed", "cancelled")

Call = dict[str, Any]
Seen = dict[str, Any]  # a record, as the status route shows it


def call(task: str, *args: object, after: Sequence[int | str] = (), **options: object) -> Call:
    return {"task": task, "args": args, "options": options, "after": after}


class Place:
    """`folder`: the working directory of all of its processes. `env`: names the ledger and the broker."""

    def __init__(self, combination: Combination, folder: Path, env: Mapping[str, str]) -> None:
        self.combination = combination
        self.folder = folder
        self.env = {
            **env,
            "SEGUNDO_APP": "main:app",
            "SEGUNDO_CONCURRENCY": str(SLOTS),
            "SEGUNDO_GRACE": GRACE,
        }
        self.server = Server("main:app", cwd=folder, env=self.env)
        # What runs records, and is killed and stopped.
        self.runner: Server | CeleryWorker = self.server
        if combination.broker is not None:
            self.runner = CeleryWorker(
                "-c", str(SLOTS), target="segundo.celery", queues=QUEUES, env=self.env, cwd=folder
            )
        self._begun: list[Server | CeleryWorker] = []
        self.client = httpx.Client(
            base_url=self.server.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=30
        )

    def start(self) -> None:
        shutil.copyfile(ROOT / "tests" / "conformance" / "app.py", self.folder / "main.py")
        for process in {self.server: None, self.runner: None}:
            self._begun.append(process)
            process.start()
        self._crash()

    def _crash(self) -> None:
        """Kill what runs records while it is at work. What comes of it is looked at last."""
        ids = self.add(call("plain_until", "wreck"), call("until", "wreck"), call("until_once", "wreck"))
        for kind in ("plain", "declared", "once"):
            self.until_said("begins", kind, "wreck")
        ids += self.add(call("declared", "wreck"))
        self.wreck = dict(zip(("plain", "declared", "once", "queued"), ids, strict=True))
        self.runner.kill()
        self.open("wreck")
        self.runner.start()

    def kill(self) -> None:
        """The end: nothing of it is kept."""
        self.client.close()
        for process in self._begun:
            process.kill()

    # What a client does

    def add(self, *calls: Call, to: str = "/calls") -> list[str]:
        """Calls that one request adds; their ids."""
        answer = self.client.post(to, json=list(calls))
        assert answer.status_code == 200, answer.text
        ids: list[str] = answer.json()
        return ids

    def get(self, path: str) -> Any:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def record(self, id: str) -> Seen:
        seen: Seen = self.get(f"/tasks/{id}")
        return seen

    def ended(self, id: str, timeout: float = PATIENCE) -> Seen:
        """The record, once it has ended."""
        return wait_until(lambda: self._if_ended(id), timeout, every=0.02)

    def _if_ended(self, id: str) -> Seen | None:
        record = self.record(id)
        return record if record["state"] in ENDED else None

    def run(self, task: str, *args: object, **options: object) -> Seen:
        """The record of one call, once it has ended."""
        (id,) = self.add(call(task, *args, **options))
        return self.ended(id)

    def cancel(self, id: str) -> int:
        return self.client.post(f"/tasks/{id}/cancel").status_code

    @contextmanager
    def events_of(self, id: str) -> Iterator[Iterator[tuple[str, Seen]]]:
        """The event stream of a record: each as its name and data."""
        with self.client.stream("GET", f"/tasks/{id}/events") as answer:
            assert answer.status_code == 200
            yield _events(answer.iter_lines())

    def in_broker(self, queue: str = "default") -> int:
        """How many messages nobody has taken."""
        return waiting_in(self.env["SEGUNDO_BROKER"], queue)

    # What its processes did

    def events(self) -> list[list[str]]:
        """Each event as its words: pid, verb, and what else."""
        events = self.folder / "events.txt"
        return [line.split() for line in events.read_text().splitlines()] if events.exists() else []

    def said(self, *words: object) -> int:
        """How often this was said."""
        return [event[1:] for event in self.events()].count([str(word) for word in words])

    def words(self, verb: str, name: str) -> list[list[str]]:
        """What was said with this verb of this name: the words that follow."""
        return [event[3:] for event in self.events() if event[1:3] == [verb, name]]

    def until_said(self, *words: object, times: int = 1) -> None:
        wait_until(lambda: self.said(*words) >= times, PATIENCE)

    def open(self, gate: str) -> None:
        """Let go on what waits for this file."""
        (self.folder / gate).touch()


def _events(lines: Iterator[str]) -> Iterator[tuple[str, Seen]]:
    name = ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)
