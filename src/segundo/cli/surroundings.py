"""What `segundo doctor` finds around the ledger: the settings, the broker, and the workers of Celery."""

import os
import socket
from collections.abc import Iterator, Mapping, Set
from contextlib import suppress
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from segundo.cli.finding import Finding, Level
from segundo.cli.phrases import number
from segundo.errors import ConfigurationError
from segundo.executors.celery.apps import make_app
from segundo.settings import DEFAULTS, without_password

PREFIX = "SEGUNDO_"
KNOWN = {f"{PREFIX}{name.upper()}" for name in DEFAULTS} | {f"{PREFIX}APP"}
PATIENCE = 5.0  # seconds that a broker has to answer
ANSWER = 1.0  # … and the workers together
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


def surroundings(broker: str | None, waiting: Mapping[str, int], *, in_a_file: bool) -> Iterator[Finding]:
    """The broker, and who works for it. `waiting`: how many records are queued, by queue."""
    if broker is None:
        yield Finding(Level.OK, "broker", "none (SEGUNDO_BROKER): the app's own processes run the records")
        return
    if in_a_file and _elsewhere(broker):
        text = (
            "on another host, and the ledger is a file of this one: workers have to run here, for no other "
            "host sees it. `segundo move` takes the records to PostgreSQL"
        )
        yield Finding(Level.WARNING, "broker", text)
    try:
        celery = make_app(broker)
    except ConfigurationError as error:
        yield Finding(Level.PROBLEM, "broker", str(without_password(str(error))))
        return
    try:
        with celery.connection_for_write(connect_timeout=PATIENCE) as connection:
            connection.ensure_connection(max_retries=1, timeout=PATIENCE)
            yield from _rabbitmq(connection) if _is_amqp(connection) else _redis(connection)
    except Exception as error:  # the libraries of brokers raise of every kind
        yield _unreachable(broker, error)
        return
    yield from _workers(celery, waiting)


def _elsewhere(broker: str) -> bool:
    host = urlsplit(broker).hostname
    return host is not None and host not in ("localhost", "127.0.0.1", "::1", socket.gethostname())


def _is_amqp(connection: Any) -> bool:
    return bool(connection.transport.driver_type == "amqp")


def _unreachable(broker: str, error: Exception) -> Finding:
    why = f"{type(error).__name__}: {without_password(str(error))}"
    text = (
        f"{without_password(broker)} cannot be used ({why}): calls wait in the ledger until it is there. "
        "Start it, or correct SEGUNDO_BROKER, its user and password"
    )
    return Finding(Level.PROBLEM, "broker", text)


def _rabbitmq(connection: Any) -> Iterator[Finding]:
    properties = connection.connection.server_properties
    yield _version(str(properties.get("product", "RabbitMQ")), str(properties.get("version", "")))


def _redis(connection: Any) -> Iterator[Finding]:
    info = connection.default_channel.client.info()
    yield _version("Redis", str(info["redis_version"]))
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


def _version(product: str, version: str) -> Finding:
    oldest = OLDEST.get(product)
    with suppress(ValueError):
        if oldest is not None and tuple(map(int, version.split(".")[:2])) < oldest:
            text = f"{product} {version}: older than {'.'.join(map(str, oldest))}, the oldest that is tried"
            return Finding(Level.WARNING, "broker", text)
    return Finding(Level.OK, "broker", f"{product} {version}")


def _workers(celery: Any, waiting: Mapping[str, int]) -> Iterator[Finding]:
    """Those that answer; a busy solo worker does not, so their silence is no problem by itself."""
    try:
        answers: dict[str, Any] = celery.control.inspect(timeout=ANSWER).active_queues() or {}
    except Exception as error:  # as above
        yield Finding(Level.WARNING, "workers", f"cannot be asked: {type(error).__name__}: {error}")
        return
    taken = {queue["name"] for queues in answers.values() for queue in queues}
    if answers:
        each = ", ".join(sorted(answers))
        yield Finding(
            Level.OK, "workers", f"{len(answers)} answer: {each}; queues {', '.join(sorted(taken))}"
        )
    else:
        text = "no Celery worker answers: SEGUNDO_APP=main:app celery -A segundo.celery worker -Q default"
        yield Finding(Level.WARNING, "workers", text)
    yield from _left_alone(waiting, taken)


def _left_alone(waiting: Mapping[str, int], taken: Set[str]) -> Iterator[Finding]:
    for queue, count in sorted(waiting.items()):
        if queue not in taken:
            text = (
                f"{queue}: {number(count, 'record')} queued, and no Celery worker that answers takes this "
                f"queue: start one with -Q {queue}, unless the app runs it itself (queues=…)"
            )
            yield Finding(Level.WARNING, "queue", text)
