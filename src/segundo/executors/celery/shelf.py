"""Celery, loaded on first use: only who has a broker needs it."""

from importlib import import_module
from typing import Any

from segundo.errors import ConfigurationError


def load(module: str) -> Any:
    """A module of Celery's or its messaging library's. They have no types. Raises ConfigurationError."""
    try:
        return import_module(module)
    except ImportError as missing:
        raise ConfigurationError(
            f'a broker needs Celery: pip install "segundo[celery]" ({missing.name} is missing)'
        ) from missing
