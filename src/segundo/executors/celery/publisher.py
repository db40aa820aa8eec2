"""The relay's side of a broker: one connection, batches of messages, all confirmed. Each call blocks."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Any

from segundo.executors.celery.apps import HIGHEST, RUN
from segundo.record import Record

logger = logging.getLogger("segundo")


class BrokerUnavailable(Exception):
    """The broker could not be reached, or did not take the messages in time."""


class Publisher:
    """Publishes for one Celery app.

    `patience`: seconds for each step of the broker's, and for each batch. `full`: so many messages in a queue
    are enough; while nobody takes them, no more are published.
    """

    def __init__(self, celery: Any, *, patience: float, full: int) -> None:
        self._celery = celery
        self._patience = patience
        self._full = full
        self._link: Link | None = None

    def reach(self) -> str:
        """Connect if need be, ask for an answer, and say which run of the broker gave it.

        Another answer than before: what the broker held may be gone. Raises BrokerUnavailable.
        """
        return str(self._safely(lambda link: link.ask()))

    def send(self, records: Sequence[Record]) -> None:
        """Publish a message about each; the broker has them on return. Raises BrokerUnavailable.

        Of a queue that is full none: what is published again each minute must not pile up there while no
        worker is at work (test_messages_do_not_pile_up_while_nobody_takes_them).
        """
        self._safely(lambda link: link.send(self._wanted(link, records)))

    def _wanted(self, link: "Link", records: Sequence[Record]) -> Sequence[Record]:
        full = {queue for queue in {record.queue for record in records} if link.depth(queue) >= self._full}
        return [record for record in records if record.queue not in full] if full else records

    def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            with suppress(Exception):
                link.close()

    def _safely(self, step: Callable[["Link"], Any]) -> Any:
        try:
            if self._link is None:
                self._link = _connect(self._celery, self._patience)
            return step(self._link)
        except Exception as error:  # the libraries of brokers raise of every kind
            self.close()
            raise BrokerUnavailable(f"{type(error).__name__}: {error}") from error


class Link(ABC):
    """One connection to a broker."""

    def __init__(self, celery: Any, connection: Any, patience: float) -> None:
        self._celery = celery
        self._connection = connection
        self._patience = patience
        self._channel = connection.default_channel
        self._producer = celery.amqp.Producer(self._channel, auto_declare=False)

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

    @abstractmethod
    def send(self, records: Sequence[Record]) -> None:
        """Publish a message about each, and wait until the broker has them."""

    def close(self) -> None:
        self._connection.close()

    def _publish(self, record: Record, **options: Any) -> None:
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
        for record in records:
            self._publish(record, timeout=self._patience)
            self._sent += 1
            self._unconfirmed.add(self._sent)
        give_up = time.monotonic() + self._patience
        while self._unconfirmed and not self._refused:
            left = give_up - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{len(self._unconfirmed)} of {len(records)} messages were not confirmed")
            self._connection.drain_events(timeout=left)
        if self._refused:
            raise BrokerUnavailable("the broker refused messages")

    def _confirmed(self, tag: int, multiple: bool) -> None:
        self._unconfirmed = (
            {each for each in self._unconfirmed if each > tag} if multiple else (self._unconfirmed - {tag})
        )

    def _nacked(self, tag: int, multiple: bool) -> None:
        self._refused = True


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

    def send(self, records: Sequence[Record]) -> None:
        batch = self._producer.batch() if hasattr(self._producer, "batch") else nullcontext()
        with batch:
            for record in records:
                self._publish(record)


def _connect(celery: Any, patience: float) -> Link:
    connection = celery.connection_for_write(connect_timeout=patience)
    kind = Amqp if connection.transport.driver_type == "amqp" else Redis
    connection.transport_options.update(kind.timeouts(patience))
    try:
        connection.ensure_connection(max_retries=1, timeout=patience)
        return kind(celery, connection, patience)
    except BaseException:
        with suppress(Exception):
            connection.close()
        raise
