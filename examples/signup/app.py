"""A sign-up service: people sign up and get an email, files are uploaded and described.

Give it an SMTP server (here one that prints what it gets) and run it:

    python -m aiosmtpd --nosetuid --listen 127.0.0.1:8025
    SMTP_PORT=8025 uvicorn examples.signup.app:app

    curl http://127.0.0.1:8000/signup --json '{"name": "Ada", "email": "ada@example.com"}'
    curl http://127.0.0.1:8000/files -F upload=@README.md -i

Kill the app between the answer and the email, start it again, and the email is sent.

| variable           | what it says                             | default     |
|--------------------|------------------------------------------|-------------|
| `SMTP_HOST`        | where emails are handed over             | `localhost` |
| `SMTP_PORT`        | and on which port                        | `25`        |
| `SIGNUP_UPLOADS`   | the folder of uploaded files and reports | `uploads`   |
| `SIGNUP_AUDIT_LOG` | one line of JSON for each sign-up        | `audit.log` |
"""

from email.utils import make_msgid
from typing import Annotated
from uuid import uuid4

from fastapi import FastAPI, Header, Response, UploadFile
from pydantic import BaseModel, EmailStr, Field

from examples.signup import audit, emails, files
from segundo import BackgroundTasks, Segundo

app = FastAPI(title="Sign-up")
Segundo(app, status="/tasks")

RequestId = Annotated[str, Header(alias="X-Request-ID", default_factory=lambda: uuid4().hex)]


class Person(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=100)]
    email: EmailStr


class SignedUp(BaseModel):
    """What the client may look up under `/tasks/{id}`."""

    email: EmailStr
    welcome: str | None
    audit: str | None


@app.post("/signup", status_code=202)
async def sign_up(person: Person, tasks: BackgroundTasks, request_id: RequestId) -> SignedUp:
    # Made here and recorded with the call, so each attempt sends the same: a second copy is known as a copy.
    message_id = make_msgid(domain="example.com")
    welcome = tasks.add_task(emails.send_welcome, person.email, person.name, message_id)
    line = tasks.add_task(audit.append, request_id, "signed up", person.email)
    return SignedUp(email=person.email, welcome=welcome.id, audit=line.id)


@app.post("/files", status_code=202)
def take_file(upload: UploadFile, tasks: BackgroundTasks) -> Response:
    path = files.keep(upload.file)
    return tasks.accepted(tasks.add_task(files.describe, path, upload.filename or "unnamed"))
