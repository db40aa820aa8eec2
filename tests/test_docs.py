"""What the documentation says is so: its examples run, its tables are the code's, its tests exist."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest

from scripts import docs
from segundo import Retry, Segundo, TaskContext, task
from segundo.options import TaskFunction
from segundo.record import TRANSITIONS, State
from segundo.settings import DEFAULTS
from tests.support import ROOT, Server, ledger_rows, wait_until
from tests.transcript import Reader, blocks

README = ROOT / "README.md"
DOCS = ROOT / "docs"
QUICKSTART, CONTEXT, GUARANTEES, SETTINGS, ARCHITECTURE = (
    DOCS / f"{name}.md" for name in ("quickstart", "context", "guarantees", "settings", "architecture")
)
PICTURES = sorted(DOCS.glob("*.svg"))


def rows(page: Path, begins: str) -> list[list[str]]:
    """The cells of each row of the table whose first line begins so; backticks are left out."""
    _, found, rest = page.read_text().partition(f"\n{begins}")
    assert found, f"{page.name} has no table that begins with {begins}"
    lines = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


# A reader, from the first line of a page to its last


@pytest.mark.timeout(120)
def test_a_reader_of_the_readme_gets_what_it_says(tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        reader.play(README)
    assert {"segundo ls", "make demo", "make test"} <= set(reader.played)


@pytest.mark.timeout(300)
def test_a_reader_of_the_quickstart_gets_what_it_says(tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        reader.play(QUICKSTART)
    states = {row["state"] for row in ledger_rows(tmp_path / "segundo.db", "SELECT state FROM records")}
    assert states == {"succeeded", "cancelled"}
    assert "To eve@example.com: thank you for order 7\n" in (tmp_path / "mail.txt").read_text()


@pytest.mark.timeout(120)
def test_a_reader_of_the_page_on_what_is_inside_a_task_gets_what_it_says(tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        reader.play(CONTEXT)
    assert "segundo ls --state waiting" in reader.played
    (published,) = ledger_rows(tmp_path / "segundo.db", "SELECT result FROM records WHERE result = '2'")
    assert published


@pytest.mark.timeout(120)
def test_a_reader_of_the_page_on_steering_gets_what_it_says(tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        reader.play(DOCS / "steering.md")
        (row,) = ledger_rows(tmp_path / "segundo.db", "SELECT * FROM records WHERE state = 'running'")
        address = f"http://127.0.0.1:{reader.port('8000')}/tasks/{row['id']}"
        refused = httpx.post(f"{address}/cancel", headers={"authorization": "Bearer 1"})
        asked = httpx.post(f"{address}/cancel", headers={"authorization": "Bearer 4711"})
        assert (refused.status_code, asked.status_code) == (403, 202)
        wait_until(lambda: httpx.get(address).json()["state"] == "cancelled")
        assert httpx.get(address).json()["progress"].keys() == {"done", "total"}
    with Server("own:app", cwd=tmp_path) as server:
        address = f"{server.url}/tasks/{row['id']}/cancel"
        assert httpx.post(address, headers={"user": "eve"}).status_code == 403


@pytest.mark.timeout(120)
def test_a_reader_of_the_page_on_dependencies_gets_what_it_says(tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        reader.play(DOCS / "dependencies.md")
    assert [row["name"] for row in ledger_rows(tmp_path / "shop.db", "SELECT * FROM orders")] == ["nuts"]


@pytest.mark.timeout(120)
def test_a_reader_of_the_page_on_starlette_gets_what_it_says(tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        reader.play(DOCS / "starlette.md")
    with Server("raw:seg", cwd=tmp_path) as server:
        assert httpx.get(f"{server.url}/eve@example.com").json() == {"status": "signed up"}
        wait_until(lambda: "To eve@example.com: welcome" in (tmp_path / "mail.txt").read_text())
    with Server("main:app", cwd=tmp_path) as server:
        answer = httpx.post(f"{server.url}/signup-accepted/bob@example.com")
        assert answer.status_code == 202
        location = f"{server.url}{answer.headers['location']}"
        wait_until(lambda: httpx.get(location).json()["state"] == "succeeded")


def test_the_page_on_what_is_inside_a_task_has_every_member_of_its_context() -> None:
    said = {word for row in rows(CONTEXT, "| | |") for word in re.findall(r"\w+", row[0])}
    members = {name for name in dir(TaskContext) if not name.startswith("_")} - {"claim"}
    assert said - {"message", "f", "done", "total"} == members


@pytest.mark.timeout(120)
def test_a_reader_of_the_page_on_results_gets_what_it_says(tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        reader.play(DOCS / "results.md")


def test_the_readme_and_the_quickstart_begin_with_the_same_app() -> None:
    first, second = (
        next(content for language, content in blocks(page) if language == "python")
        for page in (README, QUICKSTART)
    )
    assert first == second


def saved(reader: Reader, name: str) -> str:
    """The quickstart's file of this name, saved where the reader is; the app in it."""
    (code,) = [content for language, content in blocks(QUICKSTART) if content.startswith(f"# {name}.py\n")]
    reader.save(code)
    return f"{name}:app"


def test_the_quickstarts_call_in_process_is_warned_about_as_it_says(tmp_path: Path) -> None:
    (warning,) = [content for language, content in blocks(QUICKSTART) if language == "text"]
    reader = Reader(tmp_path)
    with Server(saved(reader, "hello"), cwd=tmp_path) as server:
        for _ in range(2):
            assert httpx.post(f"{server.url}/hello").status_code == 200
        wait_until(lambda: server.output().splitlines().count("hello") == 2)
        assert server.output().count(warning) == 1
    assert ledger_rows(tmp_path / "segundo.db") == []


def test_the_quickstarts_task_comes_back_when_the_other_side_says(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    with (
        supplier(reader.port("9001")) as asked,
        Server(saved(reader, "stock"), cwd=tmp_path) as server,
    ):
        assert httpx.post(f"{server.url}/stock").status_code == 200
        fetched, counted = wait_until(lambda: succeeded(tmp_path), timeout=30)
    assert asked == ["/stock.csv", "/stock.csv"]
    assert (fetched["task"], fetched["claim"], fetched["failures"]) == ("stock:fetch_stock", 2, 1)
    assert (counted["task"], counted["result"]) == ("stock:count_stock", "7")


@contextmanager
def supplier(port: int) -> Iterator[list[str]]:
    """A server that is asked too early the first time; the paths that it was asked for."""
    asked: list[str] = []

    class Supplier(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(429 if len(asked) == 1 else 200)
            self.send_header("Retry-After", "0.1")
            self.end_headers()
            self.wfile.write(b"nuts,3\nbolts,4\n")

        def log_message(self, *_: object) -> None:
            """Nothing, where the results of tests are printed."""

    with ThreadingHTTPServer(("127.0.0.1", port), Supplier) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


def succeeded(folder: Path) -> list[dict[str, Any]] | None:
    """The two records, the first that ended first; None until both have succeeded."""
    found = ledger_rows(
        folder / "segundo.db", "SELECT * FROM records WHERE state = 'succeeded' ORDER BY finished_at"
    )
    return found if len(found) == 2 else None


# Tables


def test_the_quickstart_names_every_argument_of_task_with_its_default() -> None:
    said = {re.match(r"\w+", name)[0]: default for name, default, _ in rows(QUICKSTART, "| | default |")}  # type: ignore[index]
    real = {
        name: parameter.default
        for name, parameter in inspect.signature(task).parameters.items()
        if name != "function"
    }
    assert said.keys() == real.keys()
    plain = {name: default for name, default in real.items() if default is not None}
    assert {name: said[name].strip('"') for name in plain} == {
        name: str(value) for name, value in plain.items()
    }


def test_the_quickstart_names_every_option_of_a_call() -> None:
    (first, *more) = [row[0] for row in rows(QUICKSTART, "| | |")]
    said = set(re.findall(r"(\w+)=", " ".join([first, *more])))
    assert said == set(inspect.signature(TaskFunction.options).parameters) - {"self"}


def test_the_quickstart_names_every_argument_of_retry() -> None:
    (sentence,) = re.findall(r"^And `Retry\(…\)`: .*$", QUICKSTART.read_text(), re.MULTILINE)
    assert set(inspect.signature(Retry).parameters) <= set(re.findall(r"`(\w+)`", sentence))


def test_the_settings_page_has_every_setting_its_variable_and_its_default() -> None:
    table = rows(SETTINGS, "| argument |")
    assert {row[0] for row in table} == set(inspect.signature(Segundo).parameters) - {"app"}
    said = {name: default for name, variable, default, _ in table if variable == f"SEGUNDO_{name.upper()}"}
    words = {True: "on", None: "none"}
    assert said == {name: words.get(value, str(value)) for name, value in DEFAULTS.items()}


def test_the_settings_page_has_the_numbers_that_are_in_the_code() -> None:
    for name, number, _ in rows(SETTINGS, "| | | |"):
        module, _, constant = name.rpartition(".")
        assert getattr(importlib.import_module(module), constant) == float(number), name


# The tests that hold the promises

NAMED = re.compile(r"^- `(tests/[\w/]+\.py)`: (.*)$", re.MULTILINE)


def test_every_test_that_the_guarantees_name_is_in_its_file() -> None:
    named = {
        (file, name)
        for file, names in NAMED.findall(GUARANTEES.read_text())
        for name in re.findall(r"`(test_\w+)`", names)
    }
    assert len(named) > 50
    assert {(file, name) for file, name in named if name not in functions(ROOT / file)} == set()


def functions(file: Path) -> set[str]:
    """The test functions of a file."""
    defined = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(file.read_text()).body if isinstance(node, defined)}


def test_no_test_is_named_outside_the_lists_that_are_checked() -> None:
    text = GUARANTEES.read_text()
    assert re.findall(r"\btest_\w+", NAMED.sub("", text)) == []


@pytest.mark.parametrize("number", range(1, 9))
def test_each_promise_names_tests_and_says_what_it_does_not_cover(number: int) -> None:
    (section,) = re.findall(rf"^## {number}\. .*?(?=^## )", GUARANTEES.read_text(), re.MULTILINE | re.DOTALL)
    assert NAMED.findall(section)
    assert "Not covered" in section or "Later" in section


# The architecture page, which is made from the code


def test_what_is_made_from_the_code_is_current() -> None:
    old = [path.name for path, content in docs.made().items() if path.read_text() != content]
    assert old == [], "run python -m scripts.docs"


def test_the_tree_shows_every_source_file_once_and_no_other() -> None:
    package = ROOT / "src" / "segundo"
    files = [path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()]
    sources = sorted(file for file in files if file.endswith((".py", ".sql")))
    shown = [name for name, _ in rows(ARCHITECTURE, "| file |") if "*" not in name]
    assert sorted(shown) == sources


def test_every_file_that_the_architecture_speaks_of_is_there() -> None:
    text, _, _ = ARCHITECTURE.read_text().partition("## What differs from the first design")
    named = set(re.findall(r"`([\w/]+\.(?:py|sql|md))`", text))
    files = [
        path.as_posix() for part in ("src", "bench", "tests", "docs") for path in (ROOT / part).rglob("*")
    ]
    assert [name for name in named if not any(file.endswith(f"/{name}") for file in files)] == []


def test_the_table_of_states_is_the_one_in_the_code() -> None:
    shown = [tuple(row[:3]) for row in rows(ARCHITECTURE, "| | from | to |")]
    assert shown == [(row.letter, row.source or "–", row.target or "gone") for row in TRANSITIONS]


def test_the_diagram_has_every_state_and_every_letter() -> None:
    texts = {element.text for element in ElementTree.parse(DOCS / "states.svg").iter()}
    assert set(State) <= texts
    letters = {letter for text in texts for letter in (text or "").split(", ")}
    assert {row.letter for row in TRANSITIONS} <= letters


# Pictures and links


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_stands_alone_and_is_read_in_light_and_dark(picture: Path) -> None:
    text = picture.read_text()
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme: dark" in text
    assert "href" not in text
    assert any(f"({picture.name})" in page.read_text() for page in DOCS.glob("*.md"))


def test_every_link_of_the_readme_leads_to_something() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README.read_text())
    assert links
    dead = [link for link in links if "://" not in link and not (ROOT / link.partition("#")[0]).exists()]
    assert dead == []
