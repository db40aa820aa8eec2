"""A dependency and an endpoint that both add a task: one list per request, run in the order added.

Run it, then look at `notifications.txt`: the search is noted first, the notification comes second.

    uvicorn examples.tutorial002:app
    curl -X POST 'http://127.0.0.1:8000/notifications/ada@example.com?search=engines'
"""

from pathlib import Path
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI

from segundo import Segundo

app = FastAPI()
Segundo(app)


def append_line(text: str) -> None:
    with Path("notifications.txt").open("a") as file:
        file.write(text + "\n")


def noted_search(background_tasks: BackgroundTasks, search: str | None = None) -> str | None:
    if search:
        background_tasks.add_task(append_line, f"somebody searched for {search}")
    return search


@app.post("/notifications/{address}")
async def notify(
    address: str, background_tasks: BackgroundTasks, search: Annotated[str | None, Depends(noted_search)]
) -> dict[str, str | None]:
    background_tasks.add_task(append_line, f"To {address}: somebody follows you")
    return {"message": f"{address} will be notified", "search": search}
