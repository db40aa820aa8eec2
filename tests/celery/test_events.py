"""What Flower is told, by Celery's own events."""

from threading import Thread
from typing import Any

from segundo.executors.celery.apps import make_app
from tests.celery.stage import CeleryWorker, Stage
from tests.support import wait_until

PATIENCE = 30


def test_flower_sees_tasks_by_their_own_names_and_what_became_of_them(stage: Stage) -> None:
    seen: list[dict[str, Any]] = []
    celery = make_app(stage.broker.url())
    with CeleryWorker("-c", "1", "-E"), celery.connection_for_read() as connection:
        receiver = celery.events.Receiver(connection, handlers={"*": seen.append})
        capture = Thread(target=lambda: receiver.capture(limit=None, timeout=None, wakeup=False))
        capture.start()
        wait_until(lambda: seen, PATIENCE)  # a heartbeat: it listens
        ids = {name: stage.add(name, "it")[0] for name in ("plain", "twice", "fails")}
        wait_until(stage.ended, PATIENCE)
        wait_until(lambda: ends(seen) == END, PATIENCE)
        receiver.should_stop = True
        capture.join()
    names = {event["name"] for event in seen if event["type"] == "task-received"}
    assert names == {"main:plain", "main:twice", "main:fails"}
    assert {event["uuid"] for event in seen if event["type"] == "task-received"} == set(ids.values())


END = {"task-succeeded": 2, "task-retried": 1, "task-failed": 1}


def ends(seen: list[dict[str, Any]]) -> dict[str, int]:
    kinds = [event["type"] for event in seen]
    return {kind: kinds.count(kind) for kind in END}
