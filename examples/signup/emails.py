"""Emails, over real SMTP. A mail server that is down or slow only delays them."""

import os
import smtplib
from email.message import EmailMessage

from segundo import Retry, task

SMTP_HOST = os.environ.get("SMTP_HOST", "localhost")
SMTP_PORT = int(os.environ.get("SMTP_PORT", "25"))


# All that can go wrong on the way is an OSError: no connection, a lost one, and smtplib's own errors.
@task(retry=Retry(attempts=8, wait="exponential", on=(OSError,)))
def send_welcome(address: str, name: str, message_id: str) -> None:
    """Send one email. Declared, so it runs again if the app dies meanwhile: better twice than not at all."""
    message = EmailMessage()
    message["From"] = "welcome@example.com"
    message["To"] = address
    message["Subject"] = f"Welcome, {name}"
    message["Message-ID"] = message_id
    message.set_content(f"Hello {name},\n\nit is good to have you here.\n")
    with smtplib.SMTP(SMTP_HOST, SMTP_PORT, timeout=30) as smtp:
        smtp.send_message(message)
