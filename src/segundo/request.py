"""The request side: from the first call added until the request's calls are released."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from enum import IntEnum
from typing import Any, Protocol

import starlette.background
import starlette.exceptions
from fastapi import HTTPException
from starlette.responses import Response

from segundo.background import BackgroundTasks, Recorded, call_as_fastapi_does
from segundo.errors import LedgerError, UnknownRecord
from segundo.handle import Handle, Origin, within
from segundo.record import Call, Link, Record
from segundo.task import Task

logger = logging.getLogger("segundo")

RETRY_AFTER = "1"  # seconds a refused client is asked to wait


class Phase(IntEnum):
    """How far the request is."""

    OPEN = 0  # calls are collected
    RECORDED = 1  # the response may go out; later calls are recorded on the next turn of the loop
    RELEASED = 2  # the request is over; later calls are recorded and released on the next turn of the loop
    DROPPED = 3  # the endpoint failed, or the ledger could not record: as in FastAPI, its calls are forgotten


LATE = (Phase.RECORDED, Phase.RELEASED)  # a call that comes now is recorded on the next turn of the loop


class Desk(Protocol):
    """What the request side needs of the app it belongs to."""

    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Task, Call] | None: ...
    def accepted(self, handle: Handle[Any]) -> Response: ...


class Keeper(Protocol):
    """Where the calls go, and what became of them."""

    @property
    def outcome(self) -> Callable[[str], Awaitable[Any]]: ...
    async def cancel(self, id: str) -> Record: ...
    def record(self, calls: Sequence[Call]) -> Awaitable[Sequence[Record]]: ...
    async def release(self, records: Sequence[Record]) -> None: ...
    async def forget(self, records: Sequence[Record]) -> None: ...
    def in_thread(self, function: Callable[[], Any]) -> Awaitable[Any]: ...
    def in_process_begins(self, task: starlette.background.BackgroundTask) -> None: ...
    def in_process_failed(self, task: starlette.background.BackgroundTask, error: Exception) -> None: ...
    def in_process_over(self) -> None: ...
    def later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]: ...


class RequestTasks(BackgroundTasks):
    """The calls of one request, from the first that is added until they are released.

    `live`: a WebSocket, whose calls are recorded and released as they come. One object, and no other that
    points back to it: a cycle in each request would keep the garbage collector busy.
    """

    def __init__(self, desk: Desk, keeper: Keeper, *, live: bool = False) -> None:
        super().__init__()
        self._desk = desk
        self._keeper = keeper
        self._phase = Phase.RELEASED if live else Phase.OPEN
        self._origin = Origin(keeper, over=live)
        within.set(self._origin)
        self._loop = asyncio.get_running_loop()
        self._pending: list[Recorded] = []
        self._held: Sequence[Record] = ()
        self._last_plain: str | None = None
        self._recorded = 0  # how many of `.tasks` are records, or will be
        self._flushing: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._task = id(asyncio.current_task())
        self._decided: asyncio.Future[None] | None = None  # for a `flush` that came before the recording

    # What the endpoint calls, perhaps from a thread

    def _add(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Handle[Any]:
        made = self._desk.call(function, args, kwargs)
        if made is None:
            handle = self._add_in_process(function, args, kwargs)
        else:
            handle = self._add_recorded(*made, args, kwargs)
        if self._phase in LATE:
            self._loop.call_soon_threadsafe(self._begin_late)
        return handle

    def _add_recorded(
        self, task: Task, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Handle[Any]:
        if task.plain:
            call = self._in_order(call)
        recorded = Recorded(call, task.is_async, task.function, args, kwargs)
        self.tasks.append(recorded)
        self._recorded += 1
        if self._phase is not Phase.DROPPED:
            self._pending.append(recorded)
        return recorded.handle

    def _in_order(self, call: Call) -> Call:
        """Plain calls run one after another, in the order added; one failing does not stop the next."""
        before, self._last_plain = self._last_plain, call.id
        return call if before is None else call._replace(after=(*call.after, Link(before, "run")))

    def accepted(self, call: Handle[Any]) -> Response:
        return self._desk.accepted(call)

    # What the request's exit stacks call

    async def on_function_exit(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """The endpoint and its function-scoped dependencies are over, nothing is sent: record, or refuse."""
        if self._phase is not Phase.OPEN:  # else a WebSocket: its calls are recorded as they come
            if self._phase is Phase.RECORDED and isinstance(error, starlette.exceptions.HTTPException):
                await self._take_back()
            return
        try:
            if error is not None:
                self._drop()
            else:
                await self._record_or_refuse()
        finally:
            if self._decided is not None:
                self._decided.set_result(None)

    async def on_early_answer(self) -> None:
        """The answer goes out while function-scoped dependencies are open, as `app.frontend` has it: record.

        Whether there is a file is found out later; if not, `on_function_exit` is told of a 404.
        """
        await self.on_function_exit(None, None, None)

    async def _record_or_refuse(self) -> None:
        try:
            if self._pending:
                await self._record()
        except LedgerError as reason:
            self._refuse()
            logger.error("a request is refused, its calls could not be recorded: %s", reason)
            raise HTTPException(
                503, "the work could not be recorded, try again", {"Retry-After": RETRY_AFTER}
            ) from reason
        except UnknownRecord as reason:
            self._refuse()
            logger.error("a request is refused, a call of it is to wait for no record: %s", reason)
            raise HTTPException(409, str(reason)) from reason
        except BaseException:
            self._refuse()
            raise
        self._phase = Phase.RECORDED
        if self._pending:
            # An event stream's generator runs already, and may not add another call for an hour
            # (test_a_call_added_while_its_request_is_being_recorded_is_recorded_next).
            self._begin_late()

    async def _take_back(self) -> None:
        """Nothing was sent after all: the calls are dropped, as those of any request that fails."""
        held, self._held = self._held, ()
        self._refuse()
        await self._keeper.forget(held)

    async def on_response_sent(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """The last byte is out, the request's sessions are still open: time for calls that run in process."""
        if error is None and self._phase is not Phase.DROPPED and len(self.tasks) > self._recorded:
            await self()

    async def on_request_exit(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """The request is over, whatever became of it after it was answered: release what was recorded."""
        if self._phase is Phase.DROPPED:
            return
        try:
            if (self._flushing or self._running or self._pending) and not isinstance(
                error, asyncio.CancelledError
            ):
                await self._catch_up()
            if error is None:
                if len(self.tasks) > self._recorded:
                    await self()
            elif self._held:
                logger.warning(
                    "a request failed after its calls were recorded; they run all the same: %r", error
                )
        finally:
            self._phase = Phase.RELEASED
            self._origin.over = True
            if self._held:
                await self._release()

    async def _release(self) -> None:
        held, self._held = self._held, ()
        await self._keeper.release(held)

    def _drop(self) -> None:
        self._phase = Phase.DROPPED
        self._pending.clear()

    def _refuse(self) -> None:
        """Drop them for good, also from an answer that somebody gives in the place of the request's own."""
        self._drop()
        self.tasks.clear()
        self._recorded = 0

    async def _take_up(self) -> None:
        """The endpoint failed, and an exception handler gave these to its own answer, which has been sent."""
        self._phase = Phase.RELEASED
        self._origin.over = True
        self._pending += [task for task in self.tasks if isinstance(task, Recorded)]
        await self._flush_late()

    # In process

    async def __call__(self) -> None:
        """Call what cannot be recorded, one after another, once; a failure is logged and stops nothing."""
        if self._phase is Phase.DROPPED:
            await self._take_up()
        if len(self.tasks) == self._recorded:
            return
        while (task := self._next_in_process()) is not None:
            self.tasks.remove(task)
            self._keeper.in_process_begins(task)
            try:
                await call_as_fastapi_does(task, self._keeper.in_thread)
            except Exception as error:
                self._keeper.in_process_failed(task, error)
        self._keeper.in_process_over()

    def _next_in_process(self) -> starlette.background.BackgroundTask | None:
        return next((task for task in self.tasks if not isinstance(task, Recorded)), None)

    # Recording

    async def flush(self) -> None:
        """Record what is pending now, and after the request release it too."""
        if self._phase is Phase.OPEN:
            if id(asyncio.current_task()) == self._task:
                raise RuntimeError(
                    "flush(): a request's calls are recorded when its endpoint has returned, all or none"
                )
            await self._decision()
        if self._phase is Phase.DROPPED:
            return
        if self._flushing is not None:
            await asyncio.wait([self._flushing])  # it may be recording what the caller added
        await self._record_late()

    async def _decision(self) -> None:
        """Wait until the request's calls are recorded or dropped: an event stream begins before."""
        if self._decided is None:
            self._decided = self._loop.create_future()
        await asyncio.wait([self._decided])  # and not the future itself, which others may wait for too

    async def _record_late(self) -> None:
        if self._pending:
            await self._record()
        if self._phase is Phase.RELEASED and self._held:
            await self._release()

    async def _record(self) -> None:
        await self._keep(self._taken())

    def _taken(self) -> list[Recorded]:
        count = len(self._pending)  # a thread may be adding to it: what comes now is left to the next flush
        pending = self._pending[:count]
        del self._pending[:count]
        return pending

    async def _keep(self, pending: Sequence[Recorded]) -> None:
        records = await self._keeper.record([recorded.call for recorded in pending])
        for recorded, record in zip(pending, records, strict=True):
            recorded.handle.stored(record, self._origin)
        self._held = [*self._held, *records] if self._held else records

    async def _catch_up(self) -> None:
        """What came late is recorded and, in process, called before the request is over."""
        if late := [task for task in (self._flushing, self._running) if task is not None]:
            await asyncio.wait(late)
        if self._pending:
            await self._flush_late()

    def _begin_late(self) -> None:
        if self._pending and _over(self._flushing):
            self._flushing = self._keeper.later(self._flush_late())
        if self._phase is Phase.RELEASED and _over(self._running):
            self._running = self._keeper.later(self())

    async def _flush_late(self) -> None:
        while pending := self._taken():
            try:
                await self._keep(pending)
            except UnknownRecord:  # of one of them, and these need not be recorded all or none
                for recorded in pending:
                    await self._keep_late(recorded)
            except LedgerError as error:
                _log_lost(error)
            if self._phase is Phase.RELEASED and self._held:
                await self._release()

    async def _keep_late(self, recorded: Recorded) -> None:
        try:
            await self._keep([recorded])
        except (LedgerError, UnknownRecord) as error:
            _log_lost(error)


def _log_lost(error: Exception) -> None:
    logger.error("calls added after the response began could not be recorded, and are lost: %s", error)


def _over(task: asyncio.Task[None] | None) -> bool:
    return task is None or task.done()
