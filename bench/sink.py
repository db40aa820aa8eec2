"""Stands for workers on other machines: takes all messages out of the broker, in bulk, again and again.

`python -m bench.sink --broker URL [--ledger URL]` until SIGTERM; then prints what it took. With a ledger it
also claims, and settles, what has a message, by two statements: what such workers ask of the server.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from typing import Any

import psycopg

from bench.brokers import QUEUE
from segundo.executors.celery.apps import make_app

EVERY = 0.05  # seconds
CLAIM = """
WITH taken AS MATERIALIZED (
    SELECT id FROM records
    WHERE queue = %s AND state = 'queued' AND published_until > extract(epoch FROM clock_timestamp())
    LIMIT 2000 FOR UPDATE SKIP LOCKED)
UPDATE records SET state = 'running', claim = claim + 1, owner = 'sink', started_at = created_at
WHERE id = ANY (ARRAY(SELECT id FROM taken)) RETURNING id
"""
SETTLE = """
UPDATE records SET state = 'succeeded', owner = NULL, finished_at = extract(epoch FROM clock_timestamp())
WHERE id = ANY (%s)
"""


class Sink:
    def __init__(self, broker: str, ledger: str | None) -> None:
        self._connection = make_app(broker).connection_for_read()  # it has a list for each priority
        self._channel: Any = self._connection.default_channel
        self._ledger = None if ledger is None else psycopg.connect(ledger, options="-c search_path=segundo")
        self.messages = 0
        self.settled = 0

    def take(self) -> None:
        try:
            self.messages += int(self._channel.queue_purge(QUEUE) or 0)
        except Exception:  # the queue is not there yet; each library says so in its own way
            self._channel = self._connection.channel()
        if self._ledger is not None:
            ids = [id for (id,) in self._ledger.execute(CLAIM, (QUEUE,)).fetchall()]
            self._ledger.commit()
            self._ledger.execute(SETTLE, (ids,))
            self._ledger.commit()
            self.settled += len(ids)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sink")
    parser.add_argument("--broker", required=True)
    parser.add_argument("--ledger")
    options = parser.parse_args()
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    sink = Sink(options.broker, options.ledger)
    while not over.wait(EVERY):
        sink.take()
    sink.take()
    print(json.dumps({"messages": sink.messages, "settled": sink.settled}))


if __name__ == "__main__":
    main()
