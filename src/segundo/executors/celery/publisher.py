"""The relay's side of a broker: one connection, batches of messages, all confirmed. Each call blocks."""

from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import suppress
from typing import Any

from segundo.executors.celery.apps import complete
from segundo.executors.celery.links import Amqp, BrokerUnavailable, Link, Redis
from segundo.record import Record


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

    def send(self, records: Sequence[Record]) -> Sequence[Record]:
        """Publish a message about each; the broker has them on return. Raises BrokerUnavailable.

        Of a queue that is full none, and these are returned: what is published again each minute must not
        pile up there while no worker is at work (test_messages_do_not_pile_up_while_nobody_takes_them).
        """
        full = self.full(records)
        self._safely(lambda link: link.send([record for record in records if record.queue not in full]))
        return [record for record in records if record.queue in full]

    def full(self, records: Iterable[Record]) -> Set[str]:
        """Which of their queues hold so many messages that no more are sent. Raises BrokerUnavailable."""
        queues = {record.queue for record in records}
        full: Set[str] = self._safely(
            lambda link: {queue for queue in queues if link.depth(queue) >= self._full}
        )
        return full

    def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            with suppress(Exception):
                link.close()

    def _safely(self, step: Callable[[Link], Any]) -> Any:
        try:
            if self._link is None:
                self._link = _connect(self._celery, self._patience)
            return step(self._link)
        except Exception as error:  # the libraries of brokers raise of every kind
            self.close()
            raise BrokerUnavailable(f"{type(error).__name__}: {error}") from error


def _connect(celery: Any, patience: float) -> Link:
    complete(celery)
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
