"""The audit log: a line for each thing that happened, and never two."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

LOG = Path(os.environ.get("SIGNUP_AUDIT_LOG", "audit.log")).absolute()


def append(request_id: str, event: str, subject: str) -> None:
    """Append one line. A plain function: started once at most, and listed as failed if the app dies in it."""
    line = {"at": datetime.now(UTC).isoformat(), "request": request_id, "event": event, "subject": subject}
    with LOG.open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
