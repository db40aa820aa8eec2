"""What `segundo doctor` finds around the ledger: the settings, the brokers, and who takes each queue."""

import os
import socket
from collections.abc import Generator, Iterator, Mapping, Set
from contextlib import suppress
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from segundo.cli.backlog import Backlog, Waiting
from segundo.cli.celery_workers import about, asked
from segundo.cli.finding import Finding, Level
from segundo.cli.phrases import duration, number
from segundo.executors.celery.apps import complete
from segundo.executors.celery.routes import Route, Routes
from segundo.settings import DEFAULTS, Settings, without_password

PREFIX = "SEGUNDO_"
KNOWN = {f"{PREFIX}{name.upper()}" for name in DEFAULTS} | {f"{PREFIX}APP"}
PATIENCE = 5.0  # seconds that a broker has to answer
LATE = 60.0  # seconds that a due record may wait before it is worth a word
CONSUMER_TIMEOUT = 1800.0  # seconds that RabbitMQ waits for an acknowledgement, by default
OLDEST = {"RabbitMQ": (3, 10), "Redis": (7, 0)}  # that all tests are run with


def variables(environment: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Whether each SEGUNDO_… in the environment is a setting."""
    environment = os.environ if environment is None else environment
    strange = sorted(name for name in environment if name.startswith(PREFIX) and name not in KNOWN)
    for name in strange:
        near = get_close_matches(name, KNOWN, 1)
        meant = f": did you mean {near[0]}?" if near else f"; there are {', '.join(sorted(KNOWN))}"
        yield Finding(Level.WARNING, "settings", f"{name} is no setting of Segundo, and does nothing{meant}")
    if not strange:
        found = sorted(name for name in environment if name in KNOWN and environment[name])
        yield Finding(Level.OK, "settings", ", ".join(found) or "no SEGUNDO_… is set here")


def of_the_app(name: str, settings: Settings) -> Iterator[Finding]:
    """What the app itself sets, whatever the environment says."""
    own = [setting for setting, source in settings.sources.items() if source == "argument"]
    yield Finding(Level.OK, "app", f"{name}, which sets {', '.join(own) or 'nothing'} itself")
    for variable in (f"{PREFIX}{setting.upper()}" for setting in own):
        if os.environ.get(variable):
            text = f"{variable} is set here, and does nothing: the app has that as an argument, which wins"
            yield Finding(Level.WARNING, "settings", text)


def surroundings(routes: Routes, backlog: Backlog, *, in_a_file: bool, app: bool) -> Iterator[Finding]:
    """The brokers, who works for them, and the queues of which nobody takes care.

    `app`: the routes are those of an app that was named, and not only what the environment says.
    """
    taken: dict[str, Set[str] | None] = {}  # by queue: of Celery's queues, those that workers take, if known
    for route in routes:
        crew = yield from _route(route, backlog, in_a_file=in_a_file, app=app)
        taken |= {queue: crew for queue in backlog.queues if queue in route.share}
    if not routes.celeries:
        yield _no_broker(backlog, app=app)
    for waiting in backlog.waiting:
        if waiting.queue not in taken:
            yield from () if backlog.nobody else _embedded(waiting)
        elif (crew := taken[waiting.queue]) is not None:
            yield from _on_celery(waiting, crew, app=app)


# Queues


def _embedded(waiting: Waiting) -> Iterator[Finding]:
    if waiting.late is not None and waiting.late > LATE and not waiting.published:
        text = (
            f"{_backlog(waiting)}: all slots are busy, or no process takes this queue. Start "
            f"`segundo worker main:app --queue {waiting.queue}`"
        )
        yield Finding(Level.WARNING, "queue", text)


def _on_celery(waiting: Waiting, taken: Set[str], *, app: bool) -> Iterator[Finding]:
    if waiting.queue not in taken:
        unless = "" if app else ", unless the app runs it itself (queues=…)"
        text = (
            f"{_backlog(waiting)}, and no Celery worker that answers takes this queue: start one with "
            f"-Q {waiting.queue}{unless}"
        )
        yield Finding(Level.WARNING, "queue", text)
    elif waiting.late is not None and waiting.late > LATE:
        why = (
            "it is published, and the workers that take it are busy: start more, or give them slots (-c)"
            if waiting.published
            else "nobody publishes it: start the app, or a worker, with this broker and this ledger"
        )
        yield Finding(Level.WARNING, "queue", f"{_backlog(waiting)}: {why}")


def _backlog(waiting: Waiting) -> str:
    since = "" if waiting.late is None else f", the first due for {duration(waiting.late)}"
    return f"{waiting.queue}: {number(waiting.queued, 'record')} queued{since}"


def _no_broker(backlog: Backlog, *, app: bool) -> Finding:
    if any(waiting.published for waiting in backlog.waiting):
        text = (
            "not known here, and yet records are published to one: name the app, `segundo doctor main:app`, "
            "or set SEGUNDO_BROKER as it has it"
        )
        return Finding(Level.WARNING, "broker", text)
    return Finding(
        Level.OK,
        "broker",
        f"none{'' if app else ' (SEGUNDO_BROKER)'}: the app's own processes run the records",
    )


# Brokers


def _route(
    route: Route, backlog: Backlog, *, in_a_file: bool, app: bool
) -> Generator[Finding, None, Set[str] | None]:
    """Returns the queues that its workers take; None if that cannot be known."""
    celery = route.celery
    complete(celery)
    broker = str(celery.conf.broker_write_url or celery.conf.broker_url or "amqp://localhost")
    if in_a_file and _elsewhere(broker):
        text = (
            "on another host, and the ledger is a file of this one: workers have to run here, for no other "
            "host sees it. `segundo move` takes the records to PostgreSQL"
        )
        yield Finding(Level.WARNING, "broker", text)
    try:
        with celery.connection_for_write(connect_timeout=PATIENCE) as connection:
            connection.ensure_connection(max_retries=1, timeout=PATIENCE)
            look = _rabbitmq if connection.transport.driver_type == "amqp" else _redis
            yield from look(connection, backlog.longest)
    except Exception as error:  # the libraries of brokers raise of every kind
        yield _unreachable(broker, error)
        return None
    try:
        workers = asked(celery)
    except Exception as error:  # as above
        yield Finding(Level.WARNING, "workers", f"cannot be asked: {type(error).__name__}: {error}")
        return None
    ours = {queue for queue in backlog.queues if queue in route.share} | set(route.share.queues or ())
    yield from about(workers, ours, celery.conf, app=app)
    return {queue for worker in workers if worker.runs for queue in worker.queues}


def _elsewhere(broker: str) -> bool:
    host = urlsplit(broker).hostname
    return host is not None and host not in ("localhost", "127.0.0.1", "::1", socket.gethostname())


def _unreachable(broker: str, error: Exception) -> Finding:
    why = f"{type(error).__name__}: {without_password(str(error))}"
    text = (
        f"{without_password(broker)} cannot be used ({why}): calls wait in the ledger until it is there. "
        "Start it, or correct SEGUNDO_BROKER, its user and password"
    )
    return Finding(Level.PROBLEM, "broker", text)


def _rabbitmq(connection: Any, longest: float) -> Iterator[Finding]:
    properties = connection.connection.server_properties
    yield _version(str(properties.get("product", "RabbitMQ")), str(properties.get("version", "")))
    yield _again("consumer_timeout of RabbitMQ, unless set otherwise", CONSUMER_TIMEOUT, longest)


def _redis(connection: Any, longest: float) -> Iterator[Finding]:
    info = connection.default_channel.client.info()
    yield _version("Redis", str(info["redis_version"]))
    yield _again("visibility_timeout", float(connection.default_channel.visibility_timeout), longest)
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        text = (
            f"maxmemory-policy is {policy}: when its memory is full it throws messages away, and each is "
            "published again a minute later. Set noeviction"
        )
        yield Finding(Level.WARNING, "memory", text)
    else:
        yield Finding(Level.OK, "memory", "maxmemory-policy is noeviction")
    if not info.get("aof_enabled"):
        text = "no append-only file: a restart may forget messages, which are then published again at once"
        yield Finding(Level.OK, "persistence", text)


def _again(setting: str, after: float, longest: float) -> Finding:
    """Nothing runs twice by it, whatever it is: the record is claimed."""
    text = f"one that is not acknowledged comes again after {duration(after)} ({setting})"
    if longest > after:
        text += (
            f"; attempts here may last {duration(longest)}: their messages come again, and are dropped, for "
            "the record is claimed. Nothing runs twice; a longer time spares the workers the trouble"
        )
    return Finding(Level.OK, "messages", text)


def _version(product: str, version: str) -> Finding:
    oldest = OLDEST.get(product)
    with suppress(ValueError):
        if oldest is not None and tuple(map(int, version.split(".")[:2])) < oldest:
            text = f"{product} {version}: older than {'.'.join(map(str, oldest))}, the oldest that is tried"
            return Finding(Level.WARNING, "broker", text)
    return Finding(Level.OK, "broker", f"{product} {version}")
