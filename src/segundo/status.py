"""The HTTP API of records, and the 202 answer that points to it."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, HTTPException, params
from pydantic import BaseModel
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from segundo.edge import ROOT
from segundo.errors import ConfigurationError, LedgerError, LedgerUnavailable, UnknownRecord
from segundo.handle import Handle
from segundo.pauses import with_pauses
from segundo.progress import Progress
from segundo.record import Record, State, waits_for
from segundo.request import RETRY_AFTER
from segundo.runtime import Runtime

Started = Callable[[Scope], Awaitable[Runtime]]

EVENTS = "text/event-stream"
UNBUFFERED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the second is nginx's
PAUSE = 15.0  # seconds without a change until a line says so; only then is a client that left noticed


class ProgressView(BaseModel, frozen=True):
    """How far a task says it is."""

    done: float | int
    total: float | int | None


class ProgressDetail(ProgressView, frozen=True):
    """The same with what it says to people, which may be anything that it was given."""

    message: str | None


class RecordView(BaseModel, frozen=True):
    """What anybody who knows the id may see: never arguments, result, error or any text of the task's."""

    id: str
    task: str
    state: State
    progress: ProgressView | None
    created_at: datetime
    run_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RecordDetail(RecordView, frozen=True):
    """What a reader sees whom the app's own dependencies let through."""

    progress: ProgressDetail | None
    cancel_requested: bool
    queue: str
    priority: int
    reason: str | None
    attempt: int
    failures: int
    crashes: int
    key: str | None
    same_as: str | None
    retry_of: str | None
    waits_for: list[str]
    secret: bool
    wiped: bool
    arguments: Any
    result: Any
    error: Any


class Status:
    """The status routes of one app, and the addresses they give to records."""

    @classmethod
    def of(
        cls, status: str | APIRouter | None, started: Started, *, cancel: params.Depends | None
    ) -> "Status | None":
        """None if there are to be none. Raises ConfigurationError."""
        if status is not None:
            return cls(status, started, cancel)
        if cancel is not None:
            raise ConfigurationError('cancel=Depends(…) needs the status routes: status="/tasks" beside it')
        return None

    def __init__(self, status: str | APIRouter, started: Started, cancel: params.Depends | None) -> None:
        if isinstance(status, str):
            status = APIRouter(prefix=_prefix(status), tags=["tasks"])
        if not isinstance(status, APIRouter):  # pyright: ignore[reportUnnecessaryIsInstance]  # not all callers are typed
            raise ConfigurationError(f"status=… is a prefix or an APIRouter, not {status!r}")
        self.router = status
        if not self.router.prefix:
            raise ConfigurationError("status=APIRouter(…) needs a prefix=…: without one it would take /{id}")
        # Only the app's own dependencies can say who may read more than the state.
        self._view: type[RecordView] = RecordDetail if self.router.dependencies else RecordView
        self._started = started
        self.router.add_api_route(
            "/{id}",
            self._get,
            methods=["GET"],
            response_model=self._view,
            name="segundo_record",
            summary="The state of a task",
            responses={404: {"description": "No record has this id"}},
        )
        self.router.add_api_route(
            "/{id}/events",
            self._events,
            methods=["GET"],
            response_class=StreamingResponse,
            name="segundo_events",
            summary="The state of a task, each time it changes",
            responses={
                200: {"content": {EVENTS: {}}, "description": "Each event has the state as its name"},
                404: {"description": "No record has this id"},
            },
        )
        if cancel is not None:
            self._offer_cancel(cancel)

    def _offer_cancel(self, allowed: params.Depends) -> None:
        """Only now is there a route at all: who may read is not yet who may cancel."""
        if not callable(getattr(allowed, "dependency", None)):
            raise ConfigurationError("cancel=… says who may: cancel=Depends(may_cancel), which raises if not")
        self.router.add_api_route(
            "/{id}/cancel",
            self._cancel,
            methods=["POST"],
            dependencies=[allowed],
            response_model=self._view,
            name="segundo_cancel",
            summary="Cancel a task",
            responses={
                202: {"description": "It runs, and was asked to end", "model": self._view},
                404: {"description": "No record has this id"},
                409: {"description": "It has ended already, otherwise"},
            },
        )

    async def _get(self, id: str, request: Request) -> RecordView:
        with _asking():
            return await self.view(await self._known(request.scope, id), request.scope)

    async def _events(self, id: str, request: Request) -> StreamingResponse:
        with _asking():
            await self._known(request.scope, id)
        return StreamingResponse(self._stream(id, request), media_type=EVENTS, headers=UNBUFFERED)

    async def _stream(self, id: str, request: Request) -> AsyncGenerator[str]:
        """An event for each change, until the record has ended, the client has left, or the app stops."""
        changes = (await self._started(request.scope)).ledger.watch([id])
        with suppress(LedgerUnavailable):  # it is closed: the app stops
            async with aclosing(changes), aclosing(with_pauses(changes, PAUSE)) as events:
                async for record in events:
                    if record is not None:
                        view = await self.view(record, request.scope)
                        yield f"event: {record.state}\ndata: {view.model_dump_json()}\n\n"
                    elif await request.is_disconnected():
                        return
                    else:
                        yield ": still there\n\n"

    async def _cancel(self, id: str, request: Request, response: Response) -> RecordView:
        with _asking():
            record = await (await self._started(request.scope)).cancel(id)
            if record.state is State.RUNNING:
                response.status_code = 202
            elif record.state is not State.CANCELLED:
                raise HTTPException(409, f"it has ended already: {record.state}")
            return await self.view(record, request.scope)

    async def _known(self, scope: Scope, id: str) -> Record:
        record = await self._find(scope, id)
        if record is None:
            raise UnknownRecord(id)
        return record

    async def _find(self, scope: Scope, id: str) -> Record | None:
        return await (await self._started(scope)).find(id)

    async def _waits_for(self, scope: Scope, record: Record) -> list[str]:
        if record.state is not State.WAITING:
            return []
        before = await (await self._started(scope)).ledger.waits_for([record.id])
        return waits_for(record, before.get(record.id, ()))

    async def view(self, record: Record, scope: Scope) -> RecordView:
        if self._view is not RecordDetail:
            return _public(record)
        return _detail(record, await self._waits_for(scope, record))

    async def told(self, record: Record, scope: Scope) -> RecordView:
        """What an answer says that goes out in any case, since the calls are recorded."""
        try:
            return await self.view(record, scope)
        except LedgerError:
            return _public(record)

    def accepted(self, handle: Handle[Any]) -> Response:
        if not isinstance(handle, Handle):  # pyright: ignore[reportUnnecessaryIsInstance]  # not all callers are typed
            raise TypeError(f"accepted(…) takes the handle that add_task returns, not {handle!r}")
        if handle.id is None:
            raise ConfigurationError("accepted(…): this call runs in process and has no record to point to")
        return Accepted(self, handle)

    async def live(self, record: Record, scope: Scope) -> Record:
        """The record itself, or the live one that a duplicate is the same as."""
        if record.same_as is None:
            return record
        try:
            return await self._find(scope, record.same_as) or record
        except LedgerError:  # the calls are recorded: this answer goes out
            return record

    def location(self, scope: Scope, id: str) -> str:
        root: str = scope.get(ROOT, scope.get("root_path", ""))
        return f"{root.rstrip('/')}{self.router.prefix}/{id}"


class Accepted(JSONResponse):
    """202, rendered when it is sent: only then the record exists, and a duplicate's live one is known."""

    def __init__(self, status: Status, handle: Handle[Any]) -> None:
        super().__init__(None, status_code=202)
        self._status = status
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = await self._status.live(self._handle.record, scope)
        view = await self._status.told(record, scope)
        self.body = self.render(view.model_dump(mode="json"))
        self.headers["content-length"] = str(len(self.body))
        self.headers["location"] = self._status.location(scope, record.same_as or record.id)
        await super().__call__(scope, receive, send)


@contextmanager
def _asking() -> Generator[None]:
    """Answers in the ledger's place: 404 for what it does not know, 503 where it cannot be asked."""
    try:
        yield
    except UnknownRecord:
        raise HTTPException(404, "no record has this id") from None
    except LedgerError as error:
        again = {"Retry-After": RETRY_AFTER}
        raise HTTPException(503, "the ledger could not be asked, try again", again) from error


def _prefix(status: str) -> str:
    if not status.startswith("/"):
        raise ConfigurationError(f'status={status!r}: a prefix begins with "/", as in status="/tasks"')
    return status.rstrip("/")


def _public(record: Record) -> RecordView:
    progress = Progress.read(record.progress)
    return RecordView(
        id=record.id,
        task=record.task,
        state=record.state,
        progress=None if progress is None else ProgressView(done=progress.done, total=progress.total),
        created_at=_moment(record.created_at),
        run_at=_moment(record.run_at),
        started_at=_perhaps(record.started_at),
        finished_at=_perhaps(record.finished_at),
    )


def _detail(record: Record, waits_for: list[str]) -> RecordDetail:
    record, progress = record.hiding(), Progress.read(record.progress)
    return RecordDetail(
        **_public(record).model_dump(exclude={"progress"}),
        progress=None if progress is None else ProgressDetail(**progress._asdict()),
        cancel_requested=record.cancel_requested,
        queue=record.queue,
        priority=record.priority,
        reason=record.reason,
        attempt=record.attempt,
        failures=record.failures,
        crashes=record.crashes,
        key=record.key,
        same_as=record.same_as,
        retry_of=record.retry_of,
        waits_for=waits_for,
        secret=record.secret,
        wiped=record.wiped,
        arguments=_json(record.arguments),
        result=_json(record.result),
        error=_json(record.error),
    )


def _moment(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)


def _perhaps(timestamp: float | None) -> datetime | None:
    return None if timestamp is None else _moment(timestamp)


def _json(text: str | None) -> Any:
    """The value of a JSON text; the text itself if it is none, as in a row that somebody else wrote."""
    try:
        return None if text is None else from_json(text, allow_inf_nan=False)
    except ValueError:
        return text
