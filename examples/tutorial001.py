"""The smallest app: answer first, write the notification afterwards.

Run it, then ask for a notification and look at `notifications.txt`:

    uvicorn examples.tutorial001:app
    curl -X POST http://127.0.0.1:8000/notifications/ada@example.com
"""

from pathlib import Path

from fastapi import BackgroundTasks, FastAPI

from segundo import Segundo

app = FastAPI()
Segundo(app)  # the one line; everything else is FastAPI as you know it


def write_notification(address: str, text: str = "") -> None:
    Path("notifications.txt").write_text(f"To {address}: {text}\n")


@app.post("/notifications/{address}")
async def notify(address: str, background_tasks: BackgroundTasks) -> dict[str, str]:
    background_tasks.add_task(write_notification, address, text="somebody follows you")
    return {"message": f"{address} will be notified"}
