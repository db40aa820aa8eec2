"""What `segundo doctor` is told by the workers of a Celery app: what each takes, knows, and is set to."""

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

from segundo.cli.finding import Finding, Level
from segundo.executors.celery.apps import RUN, STEPS, hurting, steps
from segundo.executors.celery.shelf import load

USUAL_STEPS = (0, 3, 6, 9)  # of Redis, where nobody sets them
ANSWER = 1.0  # seconds that all workers have to answer the first question, and each later one


class CeleryWorker(NamedTuple):
    """One that answers. `conf`: its settings, with the defaults; None if it did not say."""

    name: str
    queues: frozenset[str]
    runs: bool  # it knows the task that runs records
    conf: Any


def asked(celery: Any) -> list[CeleryWorker]:
    """Those that answer within a second; one that is busy and has no thread for it does not."""
    queues = _answers(celery, "active_queues", destination=None, limit=None)
    if not queues:
        return []
    there: dict[str, Any] = {"destination": list(queues), "limit": len(queues)}
    tasks = _answers(celery, "registered", **there)
    settings = _answers(celery, "conf", **there, with_defaults=True)
    return [
        CeleryWorker(
            name,
            frozenset(queue["name"] for queue in taken),
            runs=RUN in tasks.get(name, [RUN]),
            conf=_conf(settings.get(name)),
        )
        for name, taken in sorted(queues.items())
    ]


def _answers(celery: Any, question: str, *, destination: Any, limit: Any, **asks: Any) -> dict[str, Any]:
    inspect = celery.control.inspect(timeout=ANSWER, destination=destination, limit=limit)
    return getattr(inspect, question)(**asks) or {}


def _conf(told: Mapping[str, Any] | None) -> Any:
    return load("celery.utils.collections").AttributeDict(told) if told else None


def about(workers: Sequence[CeleryWorker], ours: Set[str], conf: Any, *, app: bool) -> Iterator[Finding]:
    """`ours`: the queues whose records go to these workers. `conf`: the settings of their Celery app here, as
    the `app` has them, or what they would be by the environment.
    """
    if not workers:
        text = "no Celery worker answers: SEGUNDO_APP=main:app celery -A segundo.celery worker -Q default"
        yield Finding(Level.WARNING, "workers", text)
        yield from (Finding(Level.WARNING, "Celery", advice) for advice in hurting(conf))
        return
    each = ", ".join(worker.name for worker in workers)
    taken = ", ".join(sorted({queue for worker in workers for queue in worker.queues}))
    yield Finding(Level.OK, "workers", f"{len(workers)} answer: {each}; queues {taken}")
    for worker in workers:
        yield from _misplaced(worker, ours)
        yield from _deaf(worker, conf) if app else ()
    yield from _settings(workers)


def _misplaced(worker: CeleryWorker, ours: Set[str]) -> Iterator[Finding]:
    shared = ", ".join(sorted(worker.queues & ours))
    if shared and not worker.runs:
        text = (
            f"{worker.name} takes {shared}, and throws the messages about records away, for it does not know "
            f"{RUN}: start it with the app that has the Segundo (SEGUNDO_APP=main:app celery -A "
            "segundo.celery worker), or let it import the module that makes it (include=…)"
        )
        yield Finding(Level.PROBLEM, "worker", text)
    elif worker.runs and ours and not shared:
        text = (
            f"{worker.name} takes {', '.join(sorted(worker.queues))}, and no record is there: "
            f"-Q {','.join(sorted(ours))}"
        )
        yield Finding(Level.WARNING, "worker", text)


def _deaf(worker: CeleryWorker, conf: Any) -> Iterator[Finding]:
    unread = _lists(conf) - _lists(worker.conf or conf)
    if worker.runs and unread:
        text = (
            f"{worker.name} reads other lists of Redis than the app writes to, by its {STEPS}, so there are "
            "records that it never takes: let both have the same broker_transport_options"
        )
        yield Finding(Level.PROBLEM, "worker", text)


def _lists(conf: Any) -> set[int]:
    """Into which a queue is divided over Redis."""
    return set(steps(conf) or USUAL_STEPS)


def _settings(workers: Sequence[CeleryWorker]) -> Iterator[Finding]:
    """What a worker warns of at its start."""
    found: dict[str, list[str]] = {}
    for worker in workers:
        for advice in hurting(worker.conf) if worker.runs and worker.conf is not None else ():
            found.setdefault(advice, []).append(worker.name)
    for advice, names in found.items():
        yield Finding(Level.WARNING, "Celery", f"{advice} ({', '.join(names)})")
