"""Which queues are run by which Celery app, and which in the processes of the app itself."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segundo.errors import ConfigurationError
from segundo.executors.celery.apps import check_app, make_app
from segundo.executors.celery.existing import Existing
from segundo.executors.celery.host import Host

EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True)
class Share:
    """Some of the queues: `queues`, or, if that is None, all `but` these."""

    queues: tuple[str, ...] | None
    but: tuple[str, ...] = ()

    def __contains__(self, queue: str) -> bool:
        return queue not in self.but if self.queues is None else queue in self.queues

    @property
    def empty(self) -> bool:
        return self.queues == ()


@dataclass(frozen=True, slots=True)
class Route:
    """A Celery app, and the queues whose records its workers run."""

    celery: Any
    share: Share


class Routes:
    """Every queue's way. `queues`: a Celery app, or "embedded", for each queue named. `broker`: for the rest.

    Raises ConfigurationError for what is neither, and for a Celery app that cannot carry records.
    """

    def __init__(self, queues: Mapping[str, Any], broker: str | None) -> None:
        self._by_app: dict[int, tuple[Any, list[str]]] = {}
        if not isinstance(queues, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  # not all callers are typed
            raise ConfigurationError('queues=… says what runs each queue: queues={"emails": celery_app}')
        for queue, runs in queues.items():
            if runs != EMBEDDED:
                check_app(runs, f"queues={{{queue!r}: …}}")
                self._by_app.setdefault(id(runs), (runs, []))[1].append(queue)
        self._embedded = tuple(queue for queue, runs in queues.items() if runs == EMBEDDED)
        self._named = tuple(queues)
        self._rest = None if broker is None else make_app(broker)

    @property
    def existing(self) -> Existing:
        """The tasks that these Celery apps have already."""
        return Existing((route.celery, route.share.__contains__) for route in self)

    @property
    def celeries(self) -> Sequence[Any]:
        """Every Celery app, that of `broker` first."""
        named = [celery for celery, _ in self._by_app.values()]
        return named if self._rest is None else [self._rest, *named]

    def serve(self, host: Host) -> None:
        """Let the workers of every Celery app run the records that messages name."""
        for celery in self.celeries:
            host.serve(celery)

    @property
    def celery(self) -> Any:
        """The Celery app whose workers run the records. Raises ConfigurationError if that is not just one."""
        if len(self.celeries) == 1 or self._rest is not None:
            return self.celeries[0]
        raise ConfigurationError(
            "no broker: set SEGUNDO_BROKER (or broker=…), for the app and its Celery workers alike"
            if not self.celeries
            else "seg.celery: there are several in queues=…; start the workers of each by its own name"
        )

    @property
    def here(self) -> Share:
        """What runs in the app's own processes."""
        return Share(None, self._sent) if self._rest is None else Share(self._embedded)

    @property
    def _sent(self) -> tuple[str, ...]:
        return tuple(queue for _, queues in self._by_app.values() for queue in queues)

    def __iter__(self) -> Iterator[Route]:
        for celery, queues in self._by_app.values():
            yield Route(celery, Share(tuple(queues)))
        if self._rest is not None:
            yield Route(self._rest, Share(None, self._named))
