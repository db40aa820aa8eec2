"""Tells other processes of what was committed here, and this one of theirs: LISTEN and NOTIFY.

Never inside the transactions that store something: the server lets those that notify commit one at a time. So
the bell has a session of its own, whose commits need no disk, and rings at most every few milliseconds. What
is rung for is in the ledger; a ring that is lost, with its process, is made up for by a look now and then.
"""

import logging
import os
import select
import threading
import time
from collections.abc import Callable

import psycopg
from psycopg import sql

from segundo.ledger.postgres.connecting import Connect, Connection

logger = logging.getLogger("segundo.ledger")

SHORTEST_PAUSE = 0.01  # seconds between two rings of one process
OF_CHANGES = 0.05  # the same, where nobody has anything to do: each ring wakes every process of the ledger
LOOK_EVERY = 5.0  # seconds after which it looks, though nobody rang
AGAIN = 1.0  # seconds until a session that broke is made anew

# What is rung for: something changed; something became claimable; a cancel of what runs was asked for.
CHANGED, CLAIMABLE, CANCELS = "changed", "claimable", "cancels"
EVERYTHING = frozenset({CHANGED, CLAIMABLE, CANCELS})
Words = frozenset[str]
NOTHING: Words = frozenset()
JUST_CHANGED: Words = frozenset({CHANGED})  # something ended, or said how far it is


class Bell(threading.Thread):
    """`heard`: called in this thread with what others rang for. `me`: by which it knows its own rings."""

    def __init__(self, connect: Connect, channel: str, me: str, heard: Callable[[Words], None]) -> None:
        super().__init__(name="segundo-bell", daemon=True)
        self._connect = connect
        self._channel = channel
        self._me = me
        self._heard = heard
        self._to_ring = NOTHING
        self._ringing = threading.Lock()
        self.listening = threading.Event()
        self._stopping = False
        self._rung = 0.0
        self._wake_out, self._wake_in = os.pipe()
        self._closing = threading.Lock()

    def ring(self, words: Words) -> None:
        """In the writer's thread: something was committed."""
        with self._ringing:
            before, self._to_ring = self._to_ring, self._to_ring | words
        if not before or (before == JUST_CHANGED != words):
            self._wake()

    def stop(self) -> None:
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        with self._closing:
            if self._wake_in >= 0:
                os.write(self._wake_in, b"!")

    # The thread

    def run(self) -> None:
        try:
            while not self._stopping:
                try:
                    with self._connect() as connection:
                        self._live(connection)
                except psycopg.Error as error:
                    logger.warning("the ledger cannot be listened to, and is looked at instead: %s", error)
                    self._wait(AGAIN)
                    self._heard(EVERYTHING)
        finally:
            with self._closing:
                os.close(self._wake_out)
                os.close(self._wake_in)
                self._wake_in = -1

    def _live(self, connection: Connection) -> None:
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
        if self.listening.is_set():
            self._heard(EVERYTHING)  # what was rung for before it listened again was not heard
        self.listening.set()
        while not self._stopping:
            self._ring(connection)
            words = self._hear(connection)
            if words:
                self._heard(words)

    def _patience(self) -> float:
        if not self._to_ring:
            return LOOK_EVERY
        return max(0.0, self._next_ring - time.monotonic())

    @property
    def _next_ring(self) -> float:
        return self._rung + (OF_CHANGES if self._to_ring == JUST_CHANGED else SHORTEST_PAUSE)

    def _ring(self, connection: Connection) -> None:
        if self._to_ring and time.monotonic() >= self._next_ring:
            with self._ringing:
                words, self._to_ring = self._to_ring, NOTHING
            connection.execute("SELECT pg_notify(%s, %s)", (self._channel, " ".join((self._me, *words))))
            self._rung = time.monotonic()

    def _hear(self, connection: Connection) -> Words:
        """What others rang for; after a long silence, what they may have."""
        if not self._wait(self._patience(), connection.fileno()) and not self._to_ring:
            return frozenset({CLAIMABLE})
        rings = [notify.payload.split(" ") for notify in connection.notifies(timeout=0)]
        return frozenset(word for who, *words in rings if who != self._me for word in words)

    def _wait(self, patience: float, *sources: int) -> bool:
        """Whether one of these has something to say, or this process, within `patience` seconds."""
        ready, _, _ = select.select([self._wake_out, *sources], [], [], patience)
        if self._wake_out in ready:
            os.read(self._wake_out, 4096)
        return bool(ready)
