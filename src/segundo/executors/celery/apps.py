"""Celery apps that carry records: made for a broker, or the user's own, with the one task that they need."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from segundo.errors import ConfigurationError
from segundo.executors.celery import mailbox
from segundo.executors.celery.shelf import load
from segundo.settings import without_password

logger = logging.getLogger("segundo")

RUN = "segundo.run"  # the one Celery task of all records; a message shows its record's own task as well
SCHEMES = ("amqp", "amqps", "pyamqp", "redis", "rediss", "sentinel")
TAKEN = "_segundo_runs"  # where a Celery app says that it has the task, which it makes only later
MADE = "_segundo_made"  # where it says that it is one of ours
HIGHEST = 9  # priority
A_DAY = 86400
PAUSE = 2.0  # seconds between a worker's tries while its broker is down
STEPS = "priority_steps"

# What is set on an app of our own. Nothing is lost by other values: the ledger alone says what runs.
SETTINGS: Mapping[str, Any] = {
    "task_default_queue": "default",
    "task_acks_late": True,  # a worker then reserves no message beyond what it runs
    "task_reject_on_worker_lost": True,  # a child that dies before it has claimed: the next gets the message
    "worker_prefetch_multiplier": 1,
    "task_ignore_result": True,  # it is in the ledger
    "task_serializer": "json",
    "accept_content": ["json"],
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,  # a worker ends by itself else, while its broker is down
    "worker_cancel_long_running_tasks_on_connection_loss": False,  # they hold their claims
}

# Of remote control, over RabbitMQ. An exclusive one is locked by a connection that broke off unknown to the
# broker, and a worker that comes back by another one ends
# (test_a_worker_whose_connection_broke_off_unknown_to_the_broker_goes_on).
MAILBOX: Mapping[str, Any] = {"control_queue_exclusive": False, "control_queue_durable": True}


# Of the connection to Redis.
REDIS: Mapping[str, Any] = {
    # A message comes again after that long, though its task runs: harmless, and needless.
    "visibility_timeout": A_DAY,
    # A list for each; by default there are four, and a 9 does not overtake an 8.
    # (test_the_most_urgent_comes_first_then_the_first_recorded)
    STEPS: list(range(HIGHEST + 1)),
}


def make_app(broker: str) -> Any:
    """A Celery app for a broker's URL. Raises ConfigurationError for a kind of broker that is not tried."""
    scheme = broker.partition("://")[0].partition("+")[0]
    if "://" not in broker or scheme not in SCHEMES:
        raise ConfigurationError(
            f"a broker is amqp://host/virtual-host (RabbitMQ) or redis://host/database, and "
            f"{without_password(broker)!r} is neither: mend SEGUNDO_BROKER, or broker=…"
        )
    celery = load("celery").Celery("segundo", broker=broker, set_as_current=False)
    celery.conf.update(SETTINGS)
    if scheme.startswith(("amqp", "pyamqp")):
        celery.conf.task_queue_max_priority = HIGHEST
        celery.conf.update(MAILBOX)
        mailbox.add_to(celery)
    else:
        setattr(celery, MADE, True)
        complete(celery)
    celery.amqp.Connection = _tries_again_soon(celery.amqp.Connection)
    return celery


def _tries_again_soon(connection: Any) -> Any:
    """A class of connections like this. Celery has no setting: its workers try again after 2, 4, ... 30 s
    (test_a_worker_looks_for_a_broker_that_has_long_been_down_as_often_as_before).
    """

    def ensure_connection(self: Any, *args: Any, **options: Any) -> Any:
        pauses = {"interval_start": PAUSE, "interval_step": 0.0}
        return connection.ensure_connection(self, *args, **pauses | options)

    return type(connection.__name__, (connection,), {"ensure_connection": ensure_connection})


def complete(celery: Any) -> None:
    """Put ours under what the user has set of the transport; a Celery app of the user's own stays as it is.

    To be called before each connection: the app and its workers have to know of the same lists in Redis, for
    what goes to another is taken by nobody (test_a_message_that_comes_again_while_its_task_runs_is_dropped).
    """
    if getattr(celery, MADE, False):
        celery.conf.broker_transport_options = {**REDIS, **celery.conf.broker_transport_options}


def check_app(celery: Any, where: str) -> None:
    """Raise ConfigurationError if it is no Celery app, or cannot carry records."""
    if not isinstance(celery, load("celery").Celery):
        raise ConfigurationError(f'{where} is a Celery app or "embedded", not {type(celery).__name__}')
    if "json" not in celery.conf.accept_content:
        raise ConfigurationError(f"{where}: its workers must take messages in JSON (accept_content)")


def add_task(celery: Any, run: Callable[[str], None]) -> None:
    """Give a Celery app the task that runs the record which its message names."""
    if getattr(celery, TAKEN, False):
        raise ConfigurationError("this Celery app already runs the records of another Segundo")
    setattr(celery, TAKEN, True)
    options = {"acks_late": True, "reject_on_worker_lost": True, "ignore_result": True, "shared": False}
    celery.task(name=RUN, throws=(Exception,), max_retries=None, **options)(run)


def steps(conf: Any) -> Any:
    """Which priorities have a list of their own in Redis; None where nobody says."""
    options: Mapping[str, Any] = conf.broker_transport_options or {}
    return options.get(STEPS)


def over_rabbitmq(conf: Any) -> bool:
    """Whether its messages come by AMQP."""
    return str(conf.broker_url).startswith(("amqp", "pyamqp"))


def hurting(conf: Any) -> list[str]:
    """What in a worker's own settings would hurt, and why; for a warning at its start."""
    found: list[str] = []
    if conf.worker_prefetch_multiplier != 1:
        found.append(
            "worker_prefetch_multiplier: a worker reserves messages that others could run; set it to 1"
        )
    for name in ("task_time_limit", "task_soft_time_limit"):
        if getattr(conf, name):
            found.append(f"{name}: Celery ends attempts behind our back; say @task(timeout=…) instead")
    if over_rabbitmq(conf) and conf.get("control_queue_exclusive"):
        found.append(
            "control_queue_exclusive: a worker whose link to RabbitMQ was cut ends when it is back; set it "
            "to False, and control_queue_durable to True"
        )
    redis = str(conf.broker_url).startswith(("redis", "sentinel"))
    if redis and steps(conf) != REDIS[STEPS]:
        found.append(
            "broker_transport_options: a task of priority 9 does not overtake one of 8; add "
            f'"{STEPS}": list(range({HIGHEST + 1})), for the app and all workers alike'
        )
    if conf.task_always_eager:
        found.append("task_always_eager: it concerns no record, but existing Celery tasks do not go out")
    return found
