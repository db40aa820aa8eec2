"""What the apps of these tests run: functions that leave a line in `events.txt` of the test's directory."""

from pathlib import Path

from segundo import current, task

EVENTS = Path("events.txt")


def note(event: str) -> None:
    with EVENTS.open("a") as file:
        file.write(f"{event}\n")


async def note_async(event: str) -> None:
    note(event)


def fail(event: str) -> None:
    note(event)
    raise ValueError(event)


async def fail_async(event: str) -> None:
    fail(event)


@task
def declared(event: str) -> str:
    note(event)
    return event.upper()


@task
async def declared_async(event: str) -> str:
    note(event)
    return event.upper()


@task
async def id_and_attempt() -> list[str | int]:
    return [current().id, current().attempt]


def events() -> list[str]:
    return EVENTS.read_text().splitlines() if EVENTS.exists() else []
