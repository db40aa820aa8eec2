"""The mailbox of a Celery worker on RabbitMQ, by which it is controlled: it goes when its worker stops."""

from contextlib import suppress
from typing import Any

from segundo.executors.celery.shelf import load


def add_to(celery: Any) -> None:
    """Let the workers of this Celery app, whose mailboxes outlive their connections, take them along.

    For ten seconds nobody else could have a mailbox of another kind under that name: a worker of an app that
    was there before ends with RESOURCE_LOCKED
    (test_a_worker_that_has_nothing_of_ours_may_take_the_name_of_one_that_has_stopped).
    """

    class TakeAlong(load("celery.bootsteps").StartStopStep):  # type: ignore[misc]  # loaded on first use
        """After the worker has left its mailbox, and before it gives up its connection."""

        requires = ("celery.worker.consumer.connection:Connection",)

        def shutdown(self, consumer: Any) -> None:
            connection = consumer.connection
            if connection is None or not connection.connected:  # it goes by itself then, a little later
                return
            name = consumer.app.control.mailbox.get_queue(consumer.hostname).name
            with suppress(Exception):  # the broker goes away just now; the libraries raise of every kind
                connection.default_channel.queue_delete(name, if_unused=True, nowait=True)

    celery.steps["consumer"].add(TakeAlong)
