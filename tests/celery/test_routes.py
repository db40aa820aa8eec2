"""Which queues go where, what is refused when the app is made, and what is set on Celery apps."""

import logging
import re
from pathlib import Path

import pytest
from celery import Celery
from fastapi import FastAPI

import segundo.celery
from segundo import Segundo, task
from segundo.errors import ConfigurationError
from segundo.executors.celery.apps import RUN, complete, hurting
from segundo.executors.celery.routes import Routes, Share
from tests.support import ROOT

BROKER = "redis://127.0.0.1:1/0"  # nothing in here connects


def test_without_a_broker_everything_runs_in_the_app() -> None:
    routes = Routes({}, None)
    assert list(routes) == []
    assert "emails" in routes.here


def test_a_queue_with_a_celery_app_goes_there_and_the_rest_runs_in_the_app() -> None:
    (route,) = routes = Routes({"emails": Celery(), "pages": "embedded"}, None)
    assert ("emails" in route.share, "pages" in route.share, "default" in route.share) == (True, False, False)
    assert ("emails" in routes.here, "pages" in routes.here, "default" in routes.here) == (False, True, True)


def test_with_a_broker_every_queue_goes_there_that_has_no_other_way() -> None:
    own = Celery()
    routes = Routes({"emails": own, "pages": "embedded"}, BROKER)
    to_own, rest = routes
    assert (to_own.celery, to_own.share) == (own, Share(("emails",)))
    assert ("default" in rest.share, "emails" in rest.share, "pages" in rest.share) == (True, False, False)
    assert ("pages" in routes.here, "default" in routes.here) == (True, False)
    assert routes.celery is rest.celery


def test_queues_of_one_celery_app_share_a_way() -> None:
    own = Celery()
    (route,) = Routes({"emails": own, "letters": own}, None)
    assert route.share == Share(("emails", "letters"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"broker": "kafka://localhost"}, "kafka://"),
        ({"broker": "localhost"}, r"amqp://"),
        ({"queues": {"emails": FastAPI()}}, '"embedded"'),
        ({"queues": {"emails": Celery(accept=["pickle"], changes={"accept_content": ["pickle"]})}}, "JSON"),
    ],
)
def test_what_cannot_carry_records_is_refused_when_the_app_is_made(
    settings: dict[str, object], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Segundo(FastAPI(), **settings)  # type: ignore[arg-type]  # wrong on purpose


def test_a_celery_app_runs_the_records_of_one_app_only() -> None:
    celery = Celery()
    Segundo(FastAPI(), queues={"emails": celery})
    with pytest.raises(ConfigurationError, match="another Segundo"):
        Segundo(FastAPI(), queues={"emails": celery})


def test_the_celery_app_of_a_broker_has_the_settings_that_the_page_names() -> None:
    celery = Segundo(FastAPI(), broker=BROKER).celery
    assert RUN in celery.tasks
    conf = celery.conf
    assert (conf.task_acks_late, conf.worker_prefetch_multiplier, conf.task_reject_on_worker_lost) == (
        True,
        1,
        True,
    )
    assert (conf.task_default_queue, conf.accept_content, conf.task_ignore_result) == (
        "default",
        ["json"],
        True,
    )
    assert conf.broker_connection_max_retries is None
    assert conf.broker_transport_options == {"visibility_timeout": 86400, "priority_steps": [*range(10)]}
    assert Segundo(FastAPI(), broker="amqp://127.0.0.1:1//").celery.conf.task_queue_max_priority == 9
    assert hurting(conf) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("worker_prefetch_multiplier", 4), ("task_time_limit", 60), ("task_soft_time_limit", 60)],
)
def test_a_setting_that_would_hurt_is_named(name: str, value: int) -> None:
    celery = Segundo(FastAPI(), broker=BROKER).celery
    setattr(celery.conf, name, value)
    (advice,) = hurting(celery.conf)
    assert advice.startswith(f"{name}:")


def test_a_mailbox_that_a_lost_connection_locks_is_named_where_the_broker_is_rabbitmq() -> None:
    theirs = Celery("theirs", broker="amqp://127.0.0.1:1//", set_as_current=False)
    theirs.conf.worker_prefetch_multiplier = 1
    (advice,) = hurting(theirs.conf)
    assert advice.startswith("control_queue_exclusive:")
    assert hurting(Segundo(FastAPI(), broker="amqp://127.0.0.1:1//").celery.conf) == []


@pytest.mark.parametrize("scheme", ["redis", "sentinel"])
def test_transport_options_of_the_users_leave_ours_where_they_say_nothing_else(scheme: str) -> None:
    celery = Segundo(FastAPI(), broker=f"{scheme}://127.0.0.1:1/0").celery
    celery.conf.broker_transport_options = {"master_name": "one", "visibility_timeout": 60}
    for _ in range(2):
        complete(celery)
    assert celery.conf.broker_transport_options == {
        "master_name": "one",
        "visibility_timeout": 60,
        "priority_steps": [*range(10)],
    }
    assert hurting(celery.conf) == []


def test_a_celery_app_of_the_users_keeps_its_lists_and_is_told_that_they_are_few() -> None:
    theirs = Celery("theirs", broker=BROKER, set_as_current=False)
    theirs.conf.worker_prefetch_multiplier = 1
    Segundo(FastAPI(), queues={"emails": theirs})
    complete(theirs)
    assert theirs.conf.broker_transport_options == {}
    (advice,) = hurting(theirs.conf)
    assert advice.startswith("broker_transport_options:")
    theirs.conf.broker_transport_options = {"priority_steps": [*range(10)]}
    assert hurting(theirs.conf) == []


def test_the_broker_comes_from_the_environment_and_its_password_is_not_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SEGUNDO_BROKER", "amqp://me:secret@127.0.0.1:1//")
    seg = Segundo(FastAPI())
    with caplog.at_level(logging.INFO, "segundo"):
        seg.settings.log()
    assert "amqp://me:***@127.0.0.1:1//" in caplog.text
    assert "secret" not in caplog.text


def test_an_app_without_a_broker_has_no_celery_app() -> None:
    with pytest.raises(ConfigurationError, match="SEGUNDO_BROKER"):
        Segundo(FastAPI()).celery  # noqa: B018  # a property


def test_the_celery_app_is_found_by_the_name_of_the_app(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_directory / "shop_on_celery.py").write_text(
        "from fastapi import FastAPI\nfrom segundo import Segundo\napp = FastAPI()\nsegundo = Segundo(app)\n"
    )
    monkeypatch.setenv("SEGUNDO_BROKER", BROKER)
    with pytest.raises(ConfigurationError, match="SEGUNDO_APP"):
        segundo.celery.app  # noqa: B018  # a property of the module
    monkeypatch.setenv("SEGUNDO_APP", "shop_on_celery:app")
    assert RUN in segundo.celery.app.tasks


def test_the_examples_of_the_page_make_apps() -> None:
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "celery.md").read_text(), re.DOTALL)
    assert len(examples) == 3
    for lines in (examples[0], *examples[1].splitlines(), examples[2]):
        exec(lines, {"__name__": "shop", "Segundo": Segundo, "app": FastAPI(), "celery_app": Celery()})


def test_a_function_with_task_can_be_made_a_celery_task_too() -> None:
    celery = Celery()
    assert celery.task(name="square")(square).run(3) == 9
    assert square(3) == 9


@task
def square(number: int) -> int:
    return number * number
