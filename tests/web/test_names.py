"""Which functions are recorded, under which name, and that a name in the ledger leads to no other."""

import functools
import importlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from subprocess import run as imported_function
from typing import Any

import pytest
from fastapi import FastAPI

from segundo import Retry, RetryLater, Segundo, task
from segundo.errors import DeclarationError, UnknownTask
from segundo.names import Names
from segundo.task import Task
from tests.support import wait_until_async
from tests.web import tasks as own_module
from tests.web.apps import LEDGER, ended, records, running
from tests.web.tasks import events, note


class Class:
    def method(self) -> None: ...

    @staticmethod
    def static() -> None: ...


def outer() -> Callable[[], None]:
    def inner() -> None: ...

    return inner


def _private() -> None: ...


another_name = note
own_other_name = outer
not_a_function = 7


@functools.wraps(note)
def wrapper(*args: Any) -> None: ...


@pytest.fixture
def names() -> Names:
    return Names([__name__], check=no_objection)


def no_objection(task: Task) -> None:
    """Any task may be offered."""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Writes a module into a directory on the path, where a user's own code would be, and imports it."""
    monkeypatch.syspath_prepend(tmp_path / "code")
    (tmp_path / "code").mkdir()

    def write(name: str, source: str) -> Path:
        path = tmp_path / "code" / f"{name}.py"
        path.write_text(source)
        importlib.invalidate_caches()
        return path

    return write


# What is recorded


def test_a_modules_function_is_known_by_its_module_and_name(names: Names) -> None:
    found = names.offered(note)
    assert isinstance(found, Task)
    assert (found.name, found.crash_limit, found.plain) == ("tests.web.tasks:note", 0, True)
    assert names.resolve(found.name) is found


def test_a_function_with_an_underscore_is_a_function_like_any_other(names: Names) -> None:
    assert isinstance(names.offered(_private), Task)


@pytest.mark.parametrize(
    "function",
    [
        lambda: None,
        outer(),
        Class.method,
        Class().method,
        Class.static,
        Class,
        functools.partial(note, "x"),
        wrapper,
        imported_function,
        print,
        [].append,
        time.sleep,
        pytest.main,
        task,
        7,
        "tests.web.tasks:note",
    ],
    ids=lambda function: getattr(function, "__qualname__", repr(function))[:30],
)
def test_what_a_later_process_could_not_find_or_may_not_call_has_no_name(names: Names, function: Any) -> None:
    assert isinstance(names.offered(function), str)


def test_functions_are_recorded_of_any_module_that_is_not_installed(names: Names, package: Any) -> None:
    package("shop_stock", "def count(): ...\n")
    module = importlib.import_module("shop_stock")
    assert isinstance(names.offered(module.count), Task)


def test_modules_names_the_only_ones_whose_functions_are_recorded(package: Any) -> None:
    package("shop_orders", "def count(): ...\n")
    module = importlib.import_module("shop_orders")
    only = Names(["shop_orders"], only=True, check=no_objection)
    assert isinstance(only.offered(module.count), Task)
    assert isinstance(only.offered(note), str)
    with pytest.raises(UnknownTask):
        only.resolve("tests.web.tasks:note")


def test_an_installed_package_that_is_named_is_recorded_too() -> None:
    assert isinstance(
        Names(["json"], only=True, check=no_objection).offered(importlib.import_module("json").dumps), Task
    )


def test_a_function_whose_name_now_leads_to_another_runs_in_process(names: Names, package: Any) -> None:
    package("shop_shadowed", "def count(): ...\nfirst = count\ndef count(): ...\n")
    module = importlib.import_module("shop_shadowed")
    assert "is another object" in str(names.offered(module.first))
    assert isinstance(names.offered(module.count), Task)


# What a name leads to

FORGED = [
    "os:system",
    "subprocess:run",
    "builtins:exec",
    "builtins:eval",
    "shutil:rmtree",
    "pytest:main",
    "segundo.task:task",
    "segundo.names:_imported",
    "tests.web.test_names:imported_function",
    "tests.web.test_names:note",
    "tests.web.test_names:another_name",
    "tests.web.test_names:own_other_name",
    "tests.web.test_names:wrapper",
    "tests.web.test_names:not_a_function",
    "tests.web.test_names:Class",
    "tests.web.test_names:Class.method",
    "tests.web.test_names:Class.static",
    "tests.web.test_names:outer.<locals>.inner",
    "tests.web.test_names:__builtins__",
    "tests.web.test_names:sqlite3.connect",
    "tests.web.test_names.sqlite3:connect",
    "tests.web.nowhere:note",
    "nowhere:note",
    "tests.web.tasks",
    "tests.web.tasks:",
    "tests.web.tasks:note:note",
    "tests.web.tasks.note",
    ".tasks:note",
    ":note",
    ":",
    "",
    "a declared task that nobody declared",
]


@pytest.mark.parametrize("name", FORGED)
def test_a_name_that_the_app_does_not_offer_leads_nowhere(names: Names, name: str) -> None:
    with pytest.raises(UnknownTask):
        names.resolve(name)


def forge(name: str, arguments: str = "{}", *, age: float = 0) -> str:
    """Write a record as somebody would who can write the file."""
    id = f"forged {name}"
    now = time.time()
    row = (id, name, "default", 5, "queued", 0, 1, arguments, now - age, now - age)
    with closing(sqlite3.connect(LEDGER)) as connection, connection:
        connection.execute(
            "INSERT INTO records (id, task, queue, priority, state, crash_limit, format, arguments,"
            " created_at, run_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )
    return id


def app() -> FastAPI:
    app = FastAPI()
    Segundo(app)
    return app


async def test_a_forged_record_is_never_run_and_waits_as_unknown_while_others_run(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    async with running(app()):
        forge("os:system", f'{{"command": "touch {proof}"}}')
        forge("subprocess:run", f'{{"*popenargs": [["touch", "{proof}"]]}}')
        forge("tests.web.test_names:imported_function", f'{{"*popenargs": [["touch", "{proof}"]]}}')
        forge("tests.web.tasks:note", '{"event": "offered"}')
        await wait_until_async(lambda: all(record["claim"] for record in records()))
        await wait_until_async(lambda: events() == ["offered"])
        await wait_until_async(lambda: [row["reason"] for row in records()].count("UnknownTask") == 3)
    waiting = [record for record in records() if record["state"] == "queued"]
    assert {(record["reason"], record["failures"]) for record in waiting} == {("UnknownTask", 0)}
    assert len(waiting) == 3
    assert not proof.exists()


async def test_a_record_that_nobody_knew_for_a_week_has_failed_as_unknown() -> None:
    async with running(app()):
        forge("os:system", '{"command": "true"}', age=8 * 86400)
        (record,) = await ended(1)
    assert (record["state"], record["reason"]) == ("failed", "UnknownTask")
    assert "os:system" in record["error"]


async def test_a_forged_argument_is_not_called_with() -> None:
    async with running(app()):
        forge("tests.web.tasks:note", '{"event": {"not": "a text"}}')
        forge("tests.web.tasks:note_async", '{"event": "x", "more": 1}')
        found = await ended(2)
    assert [record["reason"] for record in found] == ["PayloadError", "PayloadError"]
    assert events() == []


async def test_a_task_of_a_module_that_is_not_imported_yet_is_found_by_its_name(package: Any) -> None:
    package(
        "shop_lazy",
        "from segundo import task\nfrom tests.web.tasks import note\n\n"
        "@task\ndef later(event: str) -> None:\n    note(event)\n",
    )
    async with running(app()):
        forge("shop_lazy:later", '{"event": "found"}')
        (record,) = await ended(1)
    assert (record["state"], events()) == ("succeeded", ["found"])


async def test_a_module_that_fails_to_import_fails_the_record_and_says_why(package: Any) -> None:
    package("shop_broken", "1 / 0\n")
    async with running(app()):
        forge("shop_broken:later")
        (record,) = await ended(1)
    assert (record["state"], record["reason"]) == ("failed", "ZeroDivisionError")


# Declarations


def test_two_tasks_may_not_have_one_name(package: Any) -> None:
    package("shop_first", "from segundo import task\n\n@task(name='mail')\ndef first(): ...\n")
    package("shop_second", "from segundo import task\n\n@task(name='mail')\ndef second(): ...\n")
    importlib.import_module("shop_first")
    with pytest.raises(DeclarationError, match="two tasks are called 'mail'"):
        importlib.import_module("shop_second")


def test_a_module_that_is_loaded_again_replaces_its_own_tasks(names: Names, package: Any) -> None:
    path = package("shop_again", "from segundo import task\n\n@task\ndef answer() -> int:\n    return 1\n")
    module = importlib.import_module("shop_again")
    path.write_text("from segundo import task\n\n@task\ndef answer() -> int:\n    return 22\n")
    importlib.reload(module)
    assert names.resolve("shop_again:answer").function() == 22


def test_a_declared_function_is_still_a_plain_function() -> None:
    assert own_module.declared("called") == "CALLED"
    assert own_module.declared.__name__ == "declared"
    assert events() == ["called"]


def declare_a_nested_function() -> None:
    @task
    def nested() -> None: ...


def declare_a_generator() -> None:
    task(generator)


def generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (declare_a_nested_function, "defined inside a function"),
        (lambda: task(Class.method), "is a method"),
        (lambda: task(lambda: None), "defined inside a function"),
        (lambda: task(functools.partial(note, "x")), "takes a function"),
        (lambda: task(Class), "takes a function"),
        (declare_a_generator, "is a generator"),
        (lambda: task(timeout=0)(_private), "timeout"),
        (lambda: task(crashes=-1)(_private), "crashes"),
        (lambda: task(crashes=1.5)(_private), "crashes"),  # type: ignore[call-overload]  # what is tested
        (lambda: task(retry=Retry(base=float("nan")))(_private), "seconds"),
        (lambda: task(retry=Retry(attempts=1.5))(_private), "whole number"),  # type: ignore[arg-type]  # the same
        (lambda: task(retry=Retry(attempts=2**31))(_private), "2,147,483,647"),
        (lambda: task(crashes=2**31)(_private), "2,147,483,647"),
        (lambda: task(queue="a\0b")(_private), "NUL"),
        (lambda: task(queue="q" * 256)(_private), "256 bytes"),
        (lambda: task(name="\ud800")(_private), "surrogate"),
        (lambda: RetryLater(float("nan")), "no number"),
        (lambda: task(priority=10)(_private), "priority"),
        (lambda: task(retention="a while")(_private), "duration"),
        (lambda: task(retention=-1)(_private), "retention"),
        (lambda: task(timeout="30")(_private), "timeout"),  # type: ignore[call-overload]  # the same
        (lambda: task(timeout=float("inf"))(_private), "timeout"),
        (lambda: task(crashes="3")(_private), "crashes"),  # type: ignore[call-overload]  # the same
        (lambda: task(retry=Retry(attempts="3"))(_private), "whole number"),  # type: ignore[arg-type]  # the same
        (lambda: task(retry=Retry(base="1"))(_private), "seconds"),  # type: ignore[arg-type]  # the same
    ],
)
def test_what_cannot_be_a_task_is_refused_where_it_is_declared(declare: Any, said: str) -> None:
    with pytest.raises((DeclarationError, ValueError), match=said):
        declare()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"delay": -1}, "delay"),
        ({"delay": 1, "run_at": 2.0}, "not both"),
        ({"priority": 10}, "priority"),
        ({"priority": -1}, "priority"),
        ({"key": "a\0b"}, "NUL"),
        ({"key": "ñ" * 513}, "1,026 bytes"),
        ({"key": 7}, "is a text"),
        ({"queue": "a\0b"}, "NUL"),
        ({"delay": float("nan")}, "delay"),
        ({"delay": "soon"}, "delay"),
        ({"run_at": float("inf")}, "run_at"),
        ({"run_at": "2030-01-01"}, "run_at"),
    ],
)
def test_options_that_mean_nothing_are_refused_on_their_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        own_module.declared.options(**options)
