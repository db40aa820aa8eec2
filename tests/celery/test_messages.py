"""The messages that go out are those that Celery makes, though most are copies of one."""

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import kombu
import pytest
from celery import Celery
from celery.app.amqp import AMQP

from scripts.services import Service
from segundo.executors.celery.apps import make_app
from segundo.executors.celery.links import Link
from segundo.executors.celery.publisher import Publisher
from segundo.record import Record
from tests.ledger import suite as ledgers

pytestmark = pytest.mark.celery

LIKE_A_SAMPLE = "app:" + "y" * 40  # has in it what stands for an id there
TASKS = ("app:work", "app:other", 'módulo:dice "hola"', "línea\n", LIKE_A_SAMPLE)
Send = Callable[[Link, Sequence[Record]], None]


async def some_records() -> list[Record]:
    async with ledgers.Stage.on(ledgers.SQLiteStore(Path("records.db"))) as stage:
        return [
            await stage.queued(task=task, priority=priority)
            for task in TASKS for priority in (0, 4, 4, 9)
        ]  # fmt: skip


def arrived(app: Celery, send: Send, records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """What the broker then gives out, by the record's id; but for the delivery's own tag."""
    publisher = Publisher(app, patience=5, full=1000)
    publisher._safely(lambda link: [link.depth("default"), send(link, records)])
    publisher.close()
    found: dict[str, dict[str, Any]] = {}
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue(app.amqp.queues["default"])
        for _ in records:
            message = queue.get(timeout=5)
            message.ack()
            message.properties.pop("delivery_tag", None)
            found[message.headers["id"]] = {
                "headers": message.headers, "properties": message.properties, "body": message.payload,
                "encoded": (message.content_type, message.content_encoding),
            }  # fmt: skip
        queue.close()
    return found


async def test_a_copied_message_is_the_one_that_celery_makes(broker: Service) -> None:
    app, records = make_app(broker.url()), await some_records()

    def send(link: Link, records: Sequence[Record]) -> None:
        link.send(records)
        made = {record.task for record in records if link._samples.copy(record) is None}
        assert made == {LIKE_A_SAMPLE}

    sent = arrived(app, send, records)
    assert sent == arrived(app, lambda link, records: link._publish(records), records)
    assert {id: message["body"][0] for id, message in sent.items()} == {r.id: [r.id] for r in records}


class Stamping(kombu.Producer):
    """A producer of an app's own, which marks each message."""

    def publish(self, body: Any, headers: dict[str, Any] | None = None, **options: Any) -> Any:
        return super().publish(body, headers={**(headers or {}), "stamp": str(uuid.uuid4())}, **options)


class OwnMessaging(AMQP):
    Producer = Stamping


async def test_where_each_message_is_to_be_another_the_library_makes_each(broker: Service) -> None:
    app = Celery("own", broker=broker.url(), amqp=OwnMessaging, set_as_current=False)
    app.conf.task_default_queue = "default"
    records = await some_records()
    sent = arrived(app, Link.send, records)
    assert set(sent) == {record.id for record in records}
    assert len({message["headers"]["stamp"] for message in sent.values()}) == len(records)
