"""A connection to a broker, of each kind: how messages go out in batches, and what is asked of the broker."""

import base64
import json
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any

from segundo.executors.celery.apps import HIGHEST, RUN
from segundo.executors.celery.samples import Message, Samples
from segundo.executors.celery.shelf import load
from segundo.record import Record


class BrokerUnavailable(Exception):
    """The broker could not be reached, or did not take the messages in time."""


class Link(ABC):
    """One connection to a broker."""

    def __init__(self, celery: Any, connection: Any, patience: float) -> None:
        self._celery = celery
        self._connection = connection
        self._patience = patience
        self._channel = connection.default_channel
        self._producer = celery.amqp.Producer(self._channel, auto_declare=False)
        self._samples = Samples(self._made, self._marks)

    @staticmethod
    @abstractmethod
    def timeouts(patience: float) -> dict[str, Any]:
        """Options of the transport, so that no step waits longer."""

    @abstractmethod
    def ask(self) -> str:
        """Wait for any answer, and say which run of the broker gave it."""

    @abstractmethod
    def depth(self, queue: str) -> int:
        """How many messages wait in a queue, which is made if it is not there."""

    @abstractmethod
    def priority(self, record: Record) -> int:
        """The record's, as the broker counts."""

    def send(self, records: Sequence[Record]) -> None:
        """Publish a message about each, and wait until the broker has them."""
        copies: list[Message] = []
        others: list[Record] = []
        for record in records:
            copy = self._samples.copy(record)
            if copy is None:
                others.append(record)
            else:
                copies.append(copy)
        if copies:
            self._write(copies)
        if others:
            self._publish(others)

    @abstractmethod
    def _made(self, record: Record) -> Message:
        """What the library would send."""

    @abstractmethod
    def _marks(self, id: str) -> tuple[bytes, ...]:
        """What is in no message but that about this record."""

    @abstractmethod
    def _write(self, messages: Sequence[Message]) -> None:
        """Send these as they are."""

    @abstractmethod
    def _publish(self, records: Iterable[Record]) -> None:
        """Have the library make and send a message about each."""

    def close(self) -> None:
        self._connection.close()

    def _make(self, record: Record, **options: Any) -> None:
        """Have the library make a message, and hand it to the connection."""
        message = self._celery.amqp.as_task_v2(
            record.id,
            RUN,
            args=(record.id,),
            argsrepr=f"({record.id!r},)",
            kwargsrepr="{}",
            shadow=record.printable_task,  # what Flower and the worker's log call it
            ignore_result=True,
        )
        self._producer.publish(
            message.body,
            # To the queue by its name. Through an exchange it would be dropped by a broker that has forgotten
            # the binding (test_a_broker_that_is_killed_while_workers_are_busy_loses_nothing).
            exchange="",
            routing_key=self._celery.amqp.queues[record.queue].name,
            serializer="json",
            headers=message.headers,
            priority=self.priority(record),
            retry=False,
            **options,
            **message.properties,
        )


class Amqp(Link):
    """RabbitMQ: a batch is sent whole, and then every message of it is waited for to be confirmed."""

    def __init__(self, celery: Any, connection: Any, patience: float) -> None:
        super().__init__(celery, connection, patience)
        self._run = f"{id(self)}-{time.monotonic_ns()}"  # a new one with each connection
        self._unconfirmed: set[int] = set()
        self._refused = False
        self._sent = 0
        self._channel.confirm_select()
        self._channel.events["basic_ack"].add(self._confirmed)
        self._channel.events["basic_nack"].add(self._nacked)

    @staticmethod
    def timeouts(patience: float) -> dict[str, Any]:
        return {"read_timeout": patience, "write_timeout": patience, "confirm_publish": False}

    def ask(self) -> str:
        self._channel.basic_qos(0, 1, False)  # the cheapest question that is answered
        return self._run

    def depth(self, queue: str) -> int:
        declared = self._celery.amqp.queues[queue](self._channel)
        declared.declare()  # for each batch: it may have been deleted, or forgotten
        return int(self._channel.queue_declare(declared.name, passive=True).message_count)

    def priority(self, record: Record) -> int:
        return record.priority

    def send(self, records: Sequence[Record]) -> None:
        super().send(records)
        self._wait_for_confirms()

    def _made(self, record: Record) -> Message:
        written = Written()
        connection = self._channel.connection
        write_frame = connection.frame_writer
        connection.frame_writer = load("amqp.method_framing").frame_writer(connection, written)
        try:
            self._make(record, timeout=self._patience)
        finally:
            connection.frame_writer = write_frame
        return Message("", bytes(written), self._marks(record.id))

    def _marks(self, id: str) -> tuple[bytes, ...]:
        return (id.encode(),)

    def _write(self, messages: Sequence[Message]) -> None:
        transport = self._channel.connection.transport
        with transport.having_timeout(self._patience):
            transport.write(b"".join(message.text for message in messages))
        self._expect(len(messages))

    def _publish(self, records: Iterable[Record]) -> None:
        for record in records:
            self._make(record, timeout=self._patience)
            self._expect(1)

    def _expect(self, confirms: int) -> None:
        self._unconfirmed.update(range(self._sent + 1, self._sent + confirms + 1))
        self._sent += confirms

    def _wait_for_confirms(self) -> None:
        give_up = time.monotonic() + self._patience
        while self._unconfirmed and not self._refused:
            left = give_up - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{len(self._unconfirmed)} messages were not confirmed")
            self._connection.drain_events(timeout=left)
        if self._refused:
            raise BrokerUnavailable("the broker refused messages")

    def _confirmed(self, tag: int, multiple: bool) -> None:
        if multiple:
            self._unconfirmed = {each for each in self._unconfirmed if each > tag}
        else:
            self._unconfirmed.discard(tag)

    def _nacked(self, tag: int, multiple: bool) -> None:
        self._refused = True


class Written(bytearray):
    """In the place of a connection's socket: keeps what is written."""

    write = bytearray.extend


class Redis(Link):
    """Redis answers each command; a batch is one pipeline."""

    @staticmethod
    def timeouts(patience: float) -> dict[str, Any]:
        return {"socket_timeout": patience, "socket_connect_timeout": patience}

    def ask(self) -> str:
        return str(self._channel.client.info("server")["run_id"])

    def depth(self, queue: str) -> int:
        return int(self._channel.queue_declare(self._celery.amqp.queues[queue].name).message_count)

    def priority(self, record: Record) -> int:
        return HIGHEST - record.priority  # there, 0 comes first

    def _made(self, record: Record) -> Message:
        pushed = Pushed()
        self._channel.conn_or_acquire = lambda: nullcontext(pushed)
        try:
            self._make(record)
        finally:
            del self._channel.conn_or_acquire
        ((place, text),) = pushed
        tag = json.loads(text)["properties"]["delivery_tag"]
        return Message(place, text.encode(), self._marks(record.id, tag))

    def _marks(self, id: str, tag: str = "") -> tuple[bytes, ...]:
        """The body is in base64; the tag is another each time that a message goes out."""
        return id.encode(), base64.b64encode(id.encode()), (tag or str(uuid.uuid4())).encode()

    def _write(self, messages: Sequence[Message]) -> None:
        lists: dict[str, list[bytes]] = {}
        for message in messages:
            lists.setdefault(message.place, []).append(message.text)
        with self._channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipeline:
            for place, texts in lists.items():
                pipeline.lpush(place, *texts)
            pipeline.execute()

    def _publish(self, records: Iterable[Record]) -> None:
        batch = self._producer.batch() if hasattr(self._producer, "batch") else nullcontext()
        with batch:
            for record in records:
                self._make(record)


class Pushed(list[tuple[str, str]]):
    """In the place of a client of Redis: keeps what is pushed. Whatever else is wanted of it, it has not."""

    def lpush(self, place: str, text: str) -> None:
        self.append((place, text))
