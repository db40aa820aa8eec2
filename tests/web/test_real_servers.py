"""The same app on every server that people use, as a process: its whole life, clients that leave, stops."""

import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.support import Server, ledger_rows, wait_until

MAIN = """
    import asyncio
    import pathlib
    import time
    from contextlib import asynccontextmanager

    from fastapi import BackgroundTasks, FastAPI, WebSocket
    from fastapi.responses import StreamingResponse
    from segundo import Segundo, task

    def note(event: str) -> None:
        with open("events.txt", "a") as file:
            file.write(f"{event}\\n")

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        note(f"starts on {type(asyncio.get_running_loop()).__module__}")
        yield
        note("stops")

    app = FastAPI(lifespan=lifespan)
    Segundo(app)

    def fail(event: str) -> None:
        note(event)
        raise ValueError(event)

    async def gate(name: str) -> None:
        while not pathlib.Path(name).exists():
            await asyncio.sleep(0.01)

    @task
    async def waits(event: str) -> None:
        note(f"{event} begins")
        await gate("gate")
        note(f"{event} ends")

    @task
    def waits_in_a_thread(event: str) -> None:
        note(f"{event} begins")
        while not pathlib.Path("gate").exists():
            time.sleep(0.01)
        note(f"{event} ends")

    @task
    def declared(event: str) -> None:
        note(event)

    @app.post("/note/{event}")
    def add(event: str, tasks: BackgroundTasks) -> str:
        tasks.add_task(note, event)
        return "ok"

    @app.post("/fail")
    async def failing(tasks: BackgroundTasks) -> str:
        tasks.add_task(fail, "recorded failed")
        tasks.add_task(lambda: fail("in process failed"))
        return "ok"

    @app.post("/waits")
    async def waiting(tasks: BackgroundTasks) -> str:
        tasks.add_task(waits, "async")
        tasks.add_task(waits_in_a_thread, "def")
        tasks.add_task(waits.options(delay=0.5), "later")
        return "ok"

    @app.get("/before")
    async def before(tasks: BackgroundTasks) -> str:
        tasks.add_task(note, "the client left before the answer")
        note("asked")
        await gate("left")
        return "ok"

    @app.get("/endless")
    async def endless(tasks: BackgroundTasks) -> StreamingResponse:
        tasks.add_task(declared, "the client left in the middle")

        async def body():
            while True:
                yield b"x" * 10_000
                await asyncio.sleep(0)

        return StreamingResponse(body())

    @app.websocket("/socket")
    async def talk(socket: WebSocket, tasks: BackgroundTasks) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            tasks.add_task(note, text)
"""

KINDS = [
    pytest.param("uvicorn", "--http h11 --loop asyncio", "asyncio", id="uvicorn-h11-asyncio"),
    pytest.param("uvicorn", "--http httptools --loop uvloop", "uvloop", id="uvicorn-httptools-uvloop"),
    pytest.param("hypercorn", "--worker-class asyncio", "asyncio", id="hypercorn"),
    pytest.param("granian", "--loop asyncio --runtime-mode st", "asyncio", id="granian"),
    pytest.param("granian", "--loop uvloop --runtime-mode mt", "uvloop", id="granian-mt-uvloop"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(dedent(MAIN))
    return tmp_path


def events(folder: Path) -> list[str]:
    path = folder / "events.txt"
    return path.read_text().splitlines() if path.exists() else []


def happened(folder: Path, *expected: str) -> None:
    wait_until(lambda: set(expected) <= set(events(folder)), timeout=20)


def records(folder: Path) -> list[dict[str, Any]]:
    return ledger_rows(folder / "segundo.db")


def ended(folder: Path, count: int) -> list[dict[str, Any]]:
    def all_ended() -> list[dict[str, Any]] | None:
        found = records(folder)
        return found if len(found) == count and all(record["finished_at"] for record in found) else None

    return wait_until(all_ended, timeout=20) or []


@pytest.mark.parametrize(("kind", "options", "loop"), KINDS)
def test_a_server_keeps_what_it_was_told_over_its_whole_life(
    kind: str, options: str, loop: str, folder: Path
) -> None:
    pytest.importorskip(kind)
    with Server("main:app", cwd=folder, kind=kind, options=options.split()) as server:
        a_failing_task_does_not_end_its_connection(server, folder)
        a_client_may_leave_at_any_moment(server, folder)
        a_websocket_adds_while_it_is_open(server, folder)
        what_was_answered_survives_a_kill(server, folder)
        add(server, "the last")
        happened(folder, "the last")
        assert server.stop() in (0, -signal.SIGTERM)
    (begins,) = {event for event in events(folder) if event.startswith("starts")}
    assert begins.startswith(f"starts on {loop}")
    assert events(folder)[-1] == "stops"
    assert "the app's lifespan did not run" not in server.output()
    assert {record["crashes"] for record in ended(folder, len(records(folder)))} == {0, 1}


def test_two_workers_of_granian_share_the_ledger_and_run_each_call_once(folder: Path) -> None:
    pytest.importorskip("granian")
    with Server("main:app", cwd=folder, kind="granian", options=["--workers", "2"]) as server:
        wait_until(lambda: len(events(folder)) == 2)  # both lifespans have begun
        for number in range(20):
            add(server, str(number))
        found = ended(folder, 20)
        server.kill()  # it does not hear a SIGTERM that comes while one of them starts
    assert {(record["state"], record["claim"]) for record in found} == {("succeeded", 1)}
    assert sorted(events(folder)[2:], key=int) == [str(number) for number in range(20)]


def add(server: Server, event: str) -> None:
    assert httpx.post(f"{server.url}/note/{event}", trust_env=False).status_code == 200


def a_failing_task_does_not_end_its_connection(server: Server, folder: Path) -> None:
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as connection:
        for _ in range(2):
            connection.sendall(b"POST /fail HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n")
            received = b""
            while not received.endswith(b'"ok"'):
                chunk = connection.recv(65536)
                assert chunk, f"the server closed the connection after {received!r}"
                received += chunk
            happened(folder, "recorded failed", "in process failed")
    wait_until(lambda: events(folder).count("recorded failed") == 2)


def a_client_may_leave_at_any_moment(server: Server, folder: Path) -> None:
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as connection:
        connection.sendall(b"GET /before HTTP/1.1\r\nHost: app\r\n\r\n")
        happened(folder, "asked")
    (folder / "left").touch()
    happened(folder, "the client left before the answer")

    with open_stream(server):
        pass
    happened(folder, "the client left in the middle")

    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as connection:
        connection.sendall(b"POST /note/after HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n")
        while b'"ok"' not in connection.recv(65536):
            pass
    happened(folder, "after")


def a_websocket_adds_while_it_is_open(server: Server, folder: Path) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/socket", proxy=None) as websocket:
        for number in range(3):
            websocket.send(f"message {number}")
            happened(folder, f"message {number}")


def what_was_answered_survives_a_kill(server: Server, folder: Path) -> None:
    assert httpx.post(f"{server.url}/waits", trust_env=False).status_code == 200
    at_the_answer = [record["state"] for record in records(folder) if not record["finished_at"]]
    assert len(at_the_answer) == 3
    happened(folder, "async begins", "def begins")
    server.kill()
    (folder / "gate").touch()
    server.start()
    happened(folder, "async ends", "def ends", "later ends")


# Stops. The server gives up on its requests, or does not even run the end of the app's lifespan


def test_no_way_to_stop_uvicorn_loses_what_was_recorded(folder: Path) -> None:
    options = ["--timeout-graceful-shutdown", "1"]
    with Server("main:app", cwd=folder, options=options, env={"SEGUNDO_GRACE": "0.2"}) as server:
        assert httpx.post(f"{server.url}/waits", trust_env=False).status_code == 200
        with open_stream(server):
            happened(folder, "async begins", "def begins", "later begins")
            server.terminate()
            assert server.wait() in (0, -signal.SIGTERM)
        assert "timeout graceful shutdown exceeded" in server.output()
        happened(folder, "stops", "the client left in the middle")
        assert not [event for event in events(folder) if event.endswith("ends")]

        server.start()
        wait_until(lambda: events(folder).count("def begins") == 2)
        with open_stream(server):
            server.signal(signal.SIGINT)
            wait_until(lambda: server.output().count("Waiting for connections to close") == 2)
            server.signal(signal.SIGINT)
            server.wait()
        assert events(folder).count("stops") == 1, "the second stop has skipped the end of the lifespan"

        (folder / "gate").touch()
        server.start()
        found = ended(folder, 5)
    assert [record["state"] for record in found] == ["succeeded"] * 5
    assert {event for event in events(folder) if event.endswith("ends")} == {
        "async ends",
        "def ends",
        "later ends",
    }
    assert events(folder).count("the client left in the middle") >= 2


@contextmanager
def open_stream(server: Server) -> Iterator[None]:
    """A client that reads the beginning of an endless answer, and then no more."""
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: app\r\n\r\n")
        while b"xxx" not in connection.recv(65536):
            pass
        yield
