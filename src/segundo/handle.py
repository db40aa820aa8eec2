"""What `add_task` returns: how a caller finds the record of its call, and what came of it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Generic, Protocol, TypeVar, cast

from segundo.record import Record

R_co = TypeVar("R_co", covariant=True)


class Source(Protocol):
    """What handles ask, by their records' ids."""

    @property
    def outcome(self) -> Callable[[str], Awaitable[Any]]:
        """What became of a record, once it has ended."""
        ...

    async def cancel(self, id: str) -> Record: ...


class Origin:
    """Where the handles of one request, or of one call outside, come from.

    `over`: the request has ended, so that its records may run.
    """

    __slots__ = ("over", "source")

    def __init__(self, source: Source, *, over: bool) -> None:
        self.source = source
        self.over = over


# The origin of the request that runs here; what is started within it, such as a stream's body, sees it too.
within: ContextVar[Origin | None] = ContextVar("segundo.within", default=None)


class Handle(Generic[R_co]):
    """What `add_task` returns: the record's id, or None for a call that runs in process and has no record."""

    __slots__ = ("_origin", "_record", "id")

    def __init__(self, id: str | None, origin: Origin | None = None) -> None:
        self.id = id
        self._record: Record | None = None
        self._origin = origin

    @property
    def recorded(self) -> bool:
        """True once the call is durably in the ledger."""
        return self._record is not None

    @property
    def record(self) -> Record:
        """The record as it was stored. RuntimeError before that, and for a call that runs in process."""
        if self._record is None:
            raise _no_record("record", self.id)
        return self._record.hiding()

    async def result(self, timeout: float | None = None) -> R_co:
        """Wait until the record has ended, wherever it runs, and return what the task returned.

        It is decoded as the task's return annotation says; None for a plain function, and where the task does
        not keep its result. `timeout`: seconds, after which TimeoutError is raised; the record goes on.
        Raises TaskFailed, or TaskCancelled, if it ended so; UnknownRecord if the ended record was deleted;
        PayloadError if the result no longer fits the annotation; LedgerUnavailable if the app stops
        meanwhile. RuntimeError where it could never come: inside the request whose end the record waits for,
        and for a call in process. A duplicate's handle waits for the live record.
        """
        outcome = self._outcome()
        async with asyncio.timeout(timeout):
            return cast("R_co", await outcome(str(self.id)))

    def _outcome(self) -> Callable[[str], Awaitable[Any]]:
        origin = self._origin
        if self.id is None or origin is None:
            raise _no_record("result()", self.id, ": who waits in there waits for itself")
        if not origin.over and within.get() is origin:
            raise RuntimeError(
                "result(): this call runs when its request is over, so who waits inside the request waits "
                "for itself. Answer first, with accepted(…) or the handle's id, and look afterwards"
            )
        return origin.source.outcome

    async def cancel(self) -> Record:
        """Cancel the record if it does not run yet, or ask the attempt that runs to end, in any process.

        Returns the record as it is then: `cancelled`; `running` with `cancel_requested`, until the attempt
        has ended; or unchanged if it had ended before. A second cancel changes nothing. A duplicate's handle
        cancels the live record. Raises UnknownRecord if the record was deleted, LedgerUnavailable.
        RuntimeError before it is recorded, and for a call that runs in process.
        """
        if self.id is None or self._origin is None:
            raise _no_record("cancel()", self.id, ": leave the call out instead")
        return await self._origin.source.cancel(self.id)

    def stored(self, record: Record, origin: Origin) -> None:
        """The ledger has the call. A duplicate's handle becomes that of the live record it is the same as."""
        self._record = record
        self._origin = origin
        self.id = record.same_as or record.id

    def __repr__(self) -> str:
        return f"Handle({self.id!r})"


def _no_record(asked: str, id: str | None, instead: str = "") -> RuntimeError:
    """Why a call has no record, or none so far, as seen from where this runs."""
    if id is None:
        return RuntimeError(
            f"{asked}: this call runs in process and has no record; declare the function with @task"
        )
    origin = within.get()
    if origin is not None and origin.over:
        return RuntimeError(
            f"{asked}: this call is not recorded yet. On a WebSocket, and once a request is over, calls are "
            "recorded on the next turn of the event loop: await tasks.flush() first"
        )
    return RuntimeError(
        f"{asked}: this call is not recorded yet. A request's calls are recorded when its endpoint has "
        f"returned, a task's when it has succeeded{instead}"
    )
