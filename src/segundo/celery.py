"""The Celery app of the app that SEGUNDO_APP names, for workers of code that knows nothing of Celery.

SEGUNDO_APP=main:app celery -A segundo.celery worker -Q emails
"""

import os
from typing import Any

from segundo.cli.loading import load, segundo_of
from segundo.errors import ConfigurationError


def __getattr__(name: str) -> Any:
    """`app` is looked for by `celery -A segundo.celery`; it is `seg.celery` of that app's Segundo.

    Raises ConfigurationError if SEGUNDO_APP is not set or names no app with a Segundo and a broker.
    """
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    target = os.environ.get("SEGUNDO_APP")
    if not target:
        raise ConfigurationError(
            "say which app the worker is for: SEGUNDO_APP=main:app celery -A segundo.celery worker"
        )
    return segundo_of(load(target, factory=False), target).celery
