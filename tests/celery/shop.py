"""An app beside a Celery app that was there before, copied to main.py: one queue is Celery's, others ours."""

import os
from pathlib import Path

from celery import Celery
from fastapi import BackgroundTasks, FastAPI

from segundo import Segundo, current, task

celery = Celery("shop", broker=os.environ["BROKER"])
app = FastAPI()
segundo = Segundo(app, queues={"celery": celery})


def say(*words: object) -> None:
    with Path("events.txt").open("a") as events:
        events.write(" ".join(map(str, (os.getpid(), *words))) + "\n")


@celery.task
def invoice(number: int) -> str:
    say("invoice", number)
    return f"invoice {number}"


@celery.task(bind=True, max_retries=2)
def stubborn(self, name: str) -> str:  # type: ignore[no-untyped-def]  # Celery gives itself
    say("stubborn", name, self.request.retries)
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return f"{name} after {self.request.retries}"


@celery.task(autoretry_for=(ConnectionError,), max_retries=1, default_retry_delay=0.1)
def hopeless(name: str) -> None:
    raise ConnectionError(name)


@celery.task(queue="elsewhere")
def unrouted(name: str) -> None:
    say("unrouted", name)


@task
async def pages(name: str) -> None:
    say("pages", name)


@task(queue="celery")
async def on_celery(name: str) -> str:
    say("on_celery", name, current().attempt)
    return name


also = celery.task(name="also")(pages)

TASKS = {each.__name__: each for each in (pages, on_celery)}
EXISTING = {each.name.rpartition(".")[2]: each for each in (invoice, stubborn, hopeless, unrouted)}


@app.post("/{name}/{argument}")
async def call(name: str, argument: str, tasks: BackgroundTasks) -> list[str | None]:
    handle: object = tasks.add_task(
        {**TASKS, **EXISTING}[name], int(argument) if argument.isdigit() else argument
    )
    return [handle.id]  # type: ignore[attr-defined]  # it is a handle
