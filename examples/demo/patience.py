"""Waiting for something to become true, for so long and no longer."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic


async def wait_until(
    true: Callable[[], Awaitable[bool]], *, timeout: float, what: str, every: float = 0.05
) -> None:
    """Raise `TimeoutError`, naming what was waited for, if it is not true after `timeout` seconds."""
    deadline = monotonic() + timeout
    while not await true():
        if monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s in vain for {what}")
        await asyncio.sleep(every)
