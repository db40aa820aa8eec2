"""What comes of an iterator, and a word where nothing comes for a while."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

T = TypeVar("T")


async def with_pauses(items: AsyncIterator[T], pause: float) -> AsyncGenerator[T | None]:
    """Each item, and None whenever none has come for `pause` seconds. Closed, it waits for no more."""
    while True:
        coming = asyncio.ensure_future(_next(items))
        try:
            while not (await asyncio.wait([coming], timeout=pause))[0]:
                yield None
        finally:
            if not coming.done():
                coming.cancel()
                await asyncio.wait([coming])
        try:
            yield coming.result()
        except StopAsyncIteration:
            return


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)
