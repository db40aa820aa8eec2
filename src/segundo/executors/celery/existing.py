"""Tasks that a Celery app has already: given to `add_task`, they are recorded, and run on its workers."""

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from segundo.codec import Arguments, Value
from segundo.context import current
from segundo.errors import ConfigurationError, RetryLater
from segundo.executors.celery.apps import RUN
from segundo.executors.celery.shelf import load
from segundo.retry import Retry
from segundo.signature import result_annotation
from segundo.task import Task

PREFIX = "celery:"  # of their names in the ledger
CRASHES = 3  # of one that Celery would start again, too
MARK = "segundo"  # in the request of an attempt of ours


class Existing:
    """The tasks of some Celery apps, and for each app whether it runs a queue."""

    def __init__(self, apps: Iterable[tuple[Any, Callable[[str], bool]]]) -> None:
        self._apps = tuple(apps)
        self._known: dict[str, Task] = {}

    def of(self, function: object) -> Task | None:
        """What a Celery task is here; None if it is none, or none of these apps'.

        Raises ConfigurationError if its queue is not one that its app runs.
        """
        if not self._apps or not isinstance(function, load("celery").Task):
            return None
        celery_task: Any = function
        if not any(celery_task.app is celery for celery, _ in self._apps):
            return None
        return self.named(PREFIX + celery_task.name)

    def named(self, name: str) -> Task | None:
        """The task with this name in the ledger. Celery's own are not offered, and the one that is ours."""
        own = name.removeprefix(PREFIX)
        if own in (name, RUN) or own.startswith("celery."):
            return None
        for celery, runs in self._apps:
            if name not in self._known and own in celery.tasks:
                self._known[name] = _task(name, celery, celery.tasks[own], runs)
        return self._known.get(name)


def _task(name: str, celery: Any, celery_task: Any, runs: Callable[[str], bool]) -> Task:
    queue = _queue(celery, celery_task)
    if not runs(queue):
        raise ConfigurationError(
            f"{celery_task.name} is of the queue {queue!r}, which its Celery app does not run for Segundo: "
            f"add queues={{{queue!r}: …}}"
        )
    run = getattr(celery_task, "_orig_run", celery_task.run)
    return Task(
        function=_calling(celery_task),
        name=name,
        queue=queue,
        retry=Retry(attempts=None, on=()),  # it counts its retries itself, and raises Retry
        crash_limit=CRASHES if celery_task.acks_late else 0,
        keep_result=not celery_task.ignore_result,
        is_async=False,
        arguments=Arguments(run),
        result=Value(result_annotation(run)),
    )


def _queue(celery: Any, celery_task: Any) -> str:
    given = getattr(celery_task, "queue", None)
    routed = given or celery.amqp.router.route({}, celery_task.name).get("queue")
    return str(getattr(routed, "name", routed))


def _calling(celery_task: Any) -> Callable[..., Any]:
    exceptions = load("celery.exceptions")
    signature_of = celery_task.signature_from_request

    def signature_from_request(request: Any = None, *args: Any, **how: Any) -> Any:
        """What `self.retry()` publishes: of an attempt of ours nothing, for its retry waits in the ledger."""
        of = celery_task.request if request is None else request
        return Nothing() if getattr(of, MARK, False) else signature_of(request, *args, **how)

    celery_task.signature_from_request = signature_from_request

    def call(*args: Any, **kwargs: Any) -> Any:
        attempt = current()
        request = {"id": attempt.id, "task": celery_task.name, "retries": attempt.attempt - 1, MARK: True}
        celery_task.push_request(**request, args=args, kwargs=kwargs, called_directly=False)
        try:
            return celery_task.run(*args, **kwargs)
        except exceptions.Retry as retry:
            raise RetryLater(_seconds(retry.when)) from retry
        except exceptions.Ignore:
            return None
        finally:
            celery_task.pop_request()

    return call


class Nothing:
    """A message that is not sent."""

    def apply_async(self) -> None:
        """The ledger has the retry."""


def _seconds(when: float | datetime | None) -> float:
    """Until a moment, or so many: Celery's `eta` or `countdown`."""
    return max(0.0, when.timestamp() - time.time() if isinstance(when, datetime) else float(when or 0))
