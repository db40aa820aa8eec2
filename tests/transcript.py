"""Plays a page of the documentation as a reader would: saves its files, types its commands, compares.

A block of Python begins with the name of its file (`# main.py`, or `# main.py, continued`). A block of
console has commands behind `$`, and below each what it prints. Servers are real, on free ports in the place
of those that the page names; numbers, times and ids are compared by their kind only.
"""

import argparse
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import httpx

from scripts.ports import free_port
from tests.support import ROOT, Server, ledger_rows, wait_until

PATIENCE = 30.0  # seconds until a command prints what the page says, on a slow machine
PORTS = ("8000", "9000", "9001")  # that the pages name
KINDS = (
    (r"\b[0-9a-f]{16,36}\b", "<id>"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "<moment>"),
    (r"\b\d+(\.\d+)? ?(ms|s|m|h|d)\b", "<time>"),
    (r"\b\d+\b", "<number>"),
    (r"\s+", " "),
)


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """The language and the content of each fenced block."""
    for found in re.finditer(r"^```(\w+)\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        yield found[1], found[2]


def kinds(text: str) -> list[str]:
    """The lines of an output, with what is another each time replaced by its kind, in no order."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for pattern, kind in KINDS:
        lines = [re.sub(pattern, kind, line) for line in lines]
    return sorted(lines)


class Reader:
    """One reader at one terminal, in an empty folder. Leaving ends every process that was started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.played: list[str] = []  # commands
        self._ports = {port: str(free_port()) for port in PORTS}
        self._background: dict[int, Server | subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for number in list(self._background):
            self._end(number, hard=True)

    def port(self, named: str) -> int:
        """The port that stands for one that the page names."""
        return int(self._ports[named])

    def play(self, page: Path) -> None:
        for language, content in blocks(page):
            if language == "python":
                self.save(content)
            elif language == "console":
                for command, printed in _commands(content):
                    self.type(command, printed)

    def save(self, code: str) -> str:
        """Save a block of Python, and return the name of its file."""
        first, _, rest = code.partition("\n")
        named = re.fullmatch(r"# (\w+\.py)(, continued)?", first)
        assert named, f"this block does not begin with the name of its file: {code}"
        file = self.folder / named[1]
        assert file.exists() == bool(named[2]), f"{first}: there is {'no' if named[2] else 'a'} such file yet"
        with file.open("a") as saved:
            saved.write(self._with_our_ports(rest))
        return named[1]

    def type(self, command: str, printed: str) -> None:
        self.played.append(command)
        words = shlex.split(self._with_our_ports(command))
        env = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
        words = words[len(env) :]
        if words[-1] == "&":
            self._begin(words[:-1], env)
        elif words[0] in ("uvicorn", "segundo", "python", "pytest"):
            self._start_and_end(words, env, printed)
        else:
            self._look(words, printed)

    def _begin(self, words: Sequence[str], env: Mapping[str, str]) -> None:
        match words:
            case ["uvicorn", target]:
                self._start(Server(target, cwd=self.folder, env=env, port=self.port("8000")))
            case ["python", file]:
                self._start(
                    subprocess.Popen([sys.executable, file], cwd=self.folder, env={**os.environ, **env})
                )
                wait_until(lambda: _listens(self.port("9000")))
            case _:
                raise AssertionError(f"nobody knows how to begin {shlex.join(words)}")

    def _start_and_end(self, words: Sequence[str], env: Mapping[str, str], printed: str) -> None:
        match words:
            case ["uvicorn", target, *options]:
                with Server(target, cwd=self.folder, env=env, options=options) as server:
                    assert httpx.get(f"{server.url}/openapi.json").status_code == 200
            case ["segundo", "worker", *arguments]:
                self._work(arguments)
            case ["segundo", *arguments]:
                self._compare(lambda: self._segundo(arguments), printed)
            case _:
                self._run(words, env)

    def _look(self, words: Sequence[str], printed: str) -> None:
        match words:
            case ["pip", "install", *_]:
                pass  # the environment of the tests is made with it
            case ["make", target, *_]:
                assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
            case ["curl", *arguments]:
                answer = _curl(arguments)
                assert set(kinds(printed)) <= set(kinds(answer)), answer
            case ["cat", file]:
                self._compare(lambda: _read(self.folder / file), printed)
            case ["kill", *how, number]:
                self._end(int(number.removeprefix("%")), hard="-9" in how)
            case _:
                raise AssertionError(f"nobody knows how to play {shlex.join(words)}")

    def _with_our_ports(self, text: str) -> str:
        return re.sub("|".join(PORTS), lambda found: self._ports[found[0]], text)

    # Processes

    def _start(self, process: Server | subprocess.Popen[bytes]) -> None:
        """Number it as a shell does, so that %1 is what a reader would have."""
        if isinstance(process, Server):
            process.start()
        self._background[max(self._background, default=0) + 1] = process

    def _end(self, number: int, *, hard: bool) -> None:
        process = self._background.pop(number)
        if isinstance(process, Server):
            process.kill() if hard else process.stop()
        else:
            process.kill()
            process.wait()

    def _run(self, words: Sequence[str], env: Mapping[str, str] | None = None) -> str:
        module = [] if words[0] == "python" else ["-m", words[0]]
        done = subprocess.run(
            [sys.executable, *module, *words[1:]],
            cwd=self.folder,
            env={**os.environ, "COLUMNS": "80", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{shlex.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def _work(self, arguments: Sequence[str]) -> None:
        """Start a worker, and end it in good order once it runs."""
        log = self.folder / "worker.log"
        with log.open("wb") as output:
            worker = subprocess.Popen(
                [sys.executable, "-m", "segundo", "worker", *arguments], cwd=self.folder, stderr=output
            )
        try:
            wait_until(lambda: f"runs {arguments[0]}" in log.read_text(), PATIENCE)
            worker.terminate()
            assert worker.wait(PATIENCE) == 0, log.read_text()
        finally:
            worker.kill()
            worker.wait()

    # Commands

    def _segundo(self, arguments: Sequence[str]) -> str:
        return self._run(["segundo", *(self._real(arguments[0], word) for word in arguments)])

    def _real(self, command: str, word: str) -> str:
        """In the place of an id on the page, one of a record that the command can be used on."""
        if not re.fullmatch(KINDS[0][0], word):
            return word
        state = {"cancel": ("queued", "running")}.get(command, ("succeeded",) * 2)
        rows = ledger_rows(self.folder / "segundo.db", "SELECT id FROM records WHERE state IN (?, ?)", *state)
        return str(rows[0]["id"])

    def _compare(self, act: Callable[[], str], printed: str) -> None:
        if not printed:
            act()
            return
        last = ""

        def as_printed() -> bool:
            nonlocal last
            last = act()
            return kinds(last) == kinds(printed)

        try:
            wait_until(as_printed, PATIENCE, every=0.2)
        except AssertionError:
            raise AssertionError(f"the page says\n{printed}\nand it is\n{last}") from None


def _commands(block: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block, and what the page says that it prints."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def _curl(arguments: Sequence[str]) -> str:
    parser = argparse.ArgumentParser()
    parser.add_argument("-X", dest="method")
    parser.add_argument("-i", dest="with_head", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("url")
    wanted = parser.parse_args(arguments)
    body: Any = None if wanted.json is None else json.loads(wanted.json)
    answer = httpx.request(wanted.method or ("GET" if body is None else "POST"), wanted.url, json=body)
    assert answer.is_success or wanted.with_head, answer.text  # with its head the page shows what it is
    head = [f"{answer.http_version} {answer.status_code} {answer.reason_phrase}"]
    head += [f"{name}: {value}" for name, value in answer.headers.items()]
    return "\n".join([*(head if wanted.with_head else []), answer.text])


def _read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def _listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
