"""The examples do what they say, under a real uvicorn, with a real ledger and a real SMTP server."""

import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from email import message_from_bytes
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from examples import tutorial001, tutorial002
from examples.demo.mailbox import Mailbox
from examples.signup import files
from scripts.ports import free_port
from tests.support import ROOT, Server, ledger_rows, wait_until, wait_until_async

TEXT = b"one two three\nfour five\nsix"


def serve(target: str, folder: Path, **env: str) -> Server:
    return Server(target, cwd=folder, env=env, options=("--app-dir", str(ROOT)))


def states(folder: Path) -> list[str]:
    return [row["state"] for row in ledger_rows(folder / "segundo.db", "SELECT state FROM records")]


def picture(width: int, height: int, mode: str = "RGB", kind: str = "PNG") -> bytes:
    data = BytesIO()
    Image.new(mode, (width, height)).save(data, kind)
    return data.getvalue()


# The two tutorials


def test_the_first_tutorial_has_written_its_notification_when_a_test_client_returns(tmp_path: Path) -> None:
    with TestClient(tutorial001.app) as client:
        assert client.post("/notifications/ada@example.com").status_code == 200
    assert (tmp_path / "notifications.txt").read_text() == "To ada@example.com: somebody follows you\n"


def test_the_second_tutorial_runs_the_dependencys_task_before_the_endpoints(tmp_path: Path) -> None:
    with TestClient(tutorial002.app) as client:
        answer = client.post("/notifications/ada@example.com", params={"search": "engines"})
    assert answer.json() == {"message": "ada@example.com will be notified", "search": "engines"}
    assert (tmp_path / "notifications.txt").read_text().splitlines() == [
        "somebody searched for engines",
        "To ada@example.com: somebody follows you",
    ]


def test_the_first_tutorial_under_uvicorn_leaves_a_succeeded_record(tmp_path: Path) -> None:
    with serve("examples.tutorial001:app", tmp_path) as server:
        httpx.post(f"{server.url}/notifications/ada@example.com", trust_env=False).raise_for_status()
        wait_until(lambda: states(tmp_path) == ["succeeded"])
    assert (tmp_path / "notifications.txt").read_text() == "To ada@example.com: somebody follows you\n"


def test_the_second_tutorial_under_uvicorn_keeps_the_order_of_each_request(tmp_path: Path) -> None:
    with serve("examples.tutorial002:app", tmp_path) as server:
        for name in ("ada", "grace"):
            url = f"{server.url}/notifications/{name}"
            httpx.post(url, params={"search": name}, trust_env=False).raise_for_status()
        wait_until(lambda: states(tmp_path) == ["succeeded"] * 4)
    lines = (tmp_path / "notifications.txt").read_text().splitlines()
    for name in ("ada", "grace"):
        searched = f"somebody searched for {name}"
        assert [line for line in lines if name in line] == [searched, f"To {name}: somebody follows you"]


# The sign-up app


@pytest.fixture
async def mailbox(tmp_path: Path) -> AsyncIterator[Mailbox]:
    mailbox = Mailbox(tmp_path / "mailbox")
    await mailbox.start()
    yield mailbox
    mailbox.stop()


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Server]:
    """The app, for tests that send no email."""
    with serve("examples.signup.app:app", tmp_path, SMTP_PORT=str(free_port())) as server:
        yield server


async def test_a_sign_up_sends_one_email_and_writes_one_audit_line(mailbox: Mailbox, tmp_path: Path) -> None:
    with serve(
        "examples.signup.app:app", tmp_path, SMTP_HOST="127.0.0.1", SMTP_PORT=str(mailbox.port)
    ) as server:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
            answer = await sign_up(client, "Ada", "ada@example.com")
            for call in ("welcome", "audit"):
                await wait_until_async(partial(state_is, client, answer[call], "succeeded"))
    assert mailbox.arrived == {"ada@example.com": 1}
    email = message_from_bytes((tmp_path / "mailbox" / "ada@example.com-1.txt").read_bytes())
    assert (email["To"], email["Subject"]) == ("ada@example.com", "Welcome, Ada")
    (line,) = (tmp_path / "audit.log").read_text().splitlines()
    assert json.loads(line) | {"at": "now"} == {
        "at": "now",
        "request": "request-1",
        "event": "signed up",
        "subject": "ada@example.com",
    }


async def test_a_mail_server_that_is_down_only_delays_the_email(tmp_path: Path) -> None:
    port = free_port()
    mailbox = Mailbox(tmp_path / "mailbox", port=port)
    with serve("examples.signup.app:app", tmp_path, SMTP_HOST="127.0.0.1", SMTP_PORT=str(port)) as server:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
            answer = await sign_up(client, "Ada", "ada@example.com")
            failures = f"SELECT failures FROM records WHERE id = '{answer['welcome']}' AND failures > 0"
            await wait_until_async(lambda: ledger_rows(tmp_path / "segundo.db", failures))
            await mailbox.start()
            await wait_until_async(partial(state_is, client, answer["welcome"], "succeeded"), timeout=30)
            mailbox.stop()
    assert mailbox.arrived == {"ada@example.com": 1}


async def test_a_sign_up_that_is_answered_survives_a_kill(mailbox: Mailbox, tmp_path: Path) -> None:
    with serve(
        "examples.signup.app:app", tmp_path, SMTP_HOST="127.0.0.1", SMTP_PORT=str(mailbox.port)
    ) as server:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
            answers = [await sign_up(client, "Ada", f"ada-{n}@example.com") for n in range(20)]
            server.kill()
            server.start()
            for answer in answers:
                await wait_until_async(partial(state_is, client, answer["welcome"], "succeeded"))
    assert set(mailbox.arrived) == {f"ada-{n}@example.com" for n in range(20)}


def test_a_sign_up_without_a_valid_address_is_refused_and_leaves_no_record(
    app: Server, tmp_path: Path
) -> None:
    person = {"name": "Ada", "email": "not an address"}
    assert httpx.post(f"{app.url}/signup", json=person, trust_env=False).status_code == 422
    assert states(tmp_path) == []


def test_a_text_file_is_counted(app: Server, tmp_path: Path) -> None:
    report = upload_and_read_report(app, tmp_path, "poem.txt", TEXT)
    assert report["text"] == {"lines": 3, "words": 6}
    assert (report["filename"], report["size"], report["picture"]) == ("poem.txt", len(TEXT), None)
    assert report["sha256"] == hashlib.sha256(TEXT).hexdigest()


@pytest.mark.parametrize(("mode", "kind"), [("RGB", "PNG"), ("CMYK", "JPEG"), ("P", "GIF")])
def test_a_picture_is_measured_and_gets_a_thumbnail(
    app: Server, tmp_path: Path, mode: str, kind: str
) -> None:
    report = upload_and_read_report(app, tmp_path, "picture", picture(400, 200, mode, kind))
    assert report["picture"] == {"width": 400, "height": 200}
    assert report["text"] is None
    with Image.open(next(tmp_path.glob("uploads/*/thumbnail.png"))) as thumbnail:
        assert thumbnail.size == (128, 64)


def test_a_file_that_is_neither_text_nor_picture_has_a_hash_and_a_size(app: Server, tmp_path: Path) -> None:
    report = upload_and_read_report(app, tmp_path, "blob", b"\xff\xfe\xfd")
    assert (report["size"], report["text"], report["picture"]) == (3, None, None)


def test_describing_a_file_again_leaves_the_same_files(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(picture(300, 300))
    first = files.describe(path, "picture.png")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert files.describe(path, "picture.png") == first
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert set(before) == {"upload", "report.json", "thumbnail.png"}


async def sign_up(client: httpx.AsyncClient, name: str, email: str) -> dict[str, str]:
    person, headers = {"name": name, "email": email}, {"X-Request-ID": "request-1"}
    answer = await client.post("/signup", json=person, headers=headers)
    assert answer.status_code == 202
    body: dict[str, str] = answer.json()
    return body


async def state_is(client: httpx.AsyncClient, id: str, state: str) -> bool:
    answer = await client.get(f"/tasks/{id}")
    return bool(answer.raise_for_status().json()["state"] == state)


def upload_and_read_report(app: Server, folder: Path, name: str, content: bytes) -> dict[str, Any]:
    """Upload, follow the answer's `Location` until the record has succeeded, and read the one report."""
    answer = httpx.post(f"{app.url}/files", files={"upload": (name, content)}, trust_env=False)
    assert answer.status_code == 202
    location = httpx.URL(app.url).join(answer.headers["location"])
    wait_until(lambda: httpx.get(location, trust_env=False).json()["state"] == "succeeded")
    (path,) = folder.glob("uploads/*/report.json")
    report: dict[str, Any] = json.loads(path.read_bytes())
    return report
