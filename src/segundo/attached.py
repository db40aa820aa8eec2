"""`BackgroundTasks(request)`: where FastAPI does not give them, the response carries the calls."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from segundo.background import HasScope
from segundo.edge import MADE, OVER, desk_of
from segundo.errors import ConfigurationError
from segundo.record import Call, Record
from segundo.request import Desk, Keeper, Phase, RequestTasks, logger
from segundo.signature import name_of

ResponseT = TypeVar("ResponseT", bound=Response)

CARRIED = "_segundo_carried"  # where a response keeps what it carries
ERROR = 400  # the first status of an answer that says that the request has failed
KINDS = 256  # classes of responses that are remembered; more means that something makes new ones all the time


class Place(Desk, Protocol):
    """The desk of an app, which also says who keeps a request's calls."""

    def keeper(self, scope: Scope) -> Keeper: ...


class AttachedTasks(RequestTasks):
    """The calls of one request, made by hand: `recorded` records them, its response carries them."""

    def __init__(self, request: HasScope) -> None:
        scope: Any = request.scope
        made: list[Any] = scope[MADE]
        if OVER in made:
            raise RuntimeError("BackgroundTasks(request): this request is over; await seg.submit(…) instead")
        _check_on_loop()
        desk: Place = desk_of(scope)
        super().__init__(desk, desk.keeper(scope), live=scope["type"] == "websocket")
        self._begun = False
        self._failed = False
        made.append(self)

    async def recorded(self, response: ResponseT) -> ResponseT:
        if not isinstance(response, Response):  # pyright: ignore[reportUnnecessaryIsInstance]  # not all callers are typed
            raise TypeError(f"recorded(…) takes a response of Starlette, not {type(response).__name__}")
        await self.on_function_exit(None, None, None)
        if self._phase is Phase.DROPPED:
            raise RuntimeError("recorded(…): these calls were dropped; make another BackgroundTasks(request)")
        await self.flush()
        _carry(response, self)
        return response

    # What the response that carries them calls

    def answer_begins(self) -> None:
        self._begun = True

    async def answer_sent(self) -> None:
        """The last byte is out: time for what runs in process."""
        if self._begun:
            await self.on_response_sent(None, None, None)

    async def __call__(self) -> None:
        """Be the `background=` of a response, as in Starlette; what was not recorded is recorded now."""
        if self._phase is Phase.OPEN:
            logger.warning(
                "calls are recorded after their request was answered: return await tasks.recorded(response)"
            )
            self._begun = True
            self._phase = Phase.RECORDED
            await self._flush_late()
        if isinstance(self._keeper, Starting):
            await self._keeper.start()
        await super().__call__()

    # What the edge calls

    async def on_answer(self, status: int) -> None:
        """An answer begins. If it is another than the recorded one, none of these calls shall run."""
        self._failed = status >= ERROR
        if self._phase is Phase.RECORDED and not self._begun:
            self._warn_of_drop()
            await self._take_back_in_peace()

    async def on_end(self, error: BaseException | None) -> None:
        """The request is over: release what was recorded for the answer that began, and drop all else."""
        if self._phase is Phase.OPEN:
            self._failed = self._failed or error is not None
            self._warn_of_drop()
            await self.on_function_exit(None, error or RuntimeError("not recorded"), None)
        elif self._phase is Phase.RECORDED and not self._begun:
            await self._take_back_in_peace()
        else:
            await self.on_request_exit(None, error, None)

    def _warn_of_drop(self) -> None:
        """Who fails the request means it; who answers as if all were well has forgotten them."""
        if self.tasks and not self._failed:
            names = dict.fromkeys(name_of(task.func) for task in self.tasks)
            logger.warning(
                "a request's calls of %s are dropped, for its answer does not carry them: "
                "return await tasks.recorded(response)",
                ", ".join(names),
            )

    async def _take_back_in_peace(self) -> None:
        """In a task of its own, which goes on if the request is cancelled meanwhile."""
        await asyncio.wait([self._keeper.later(self._take_back_all())])

    async def _take_back_all(self) -> None:
        if self._flushing is not None:
            await asyncio.wait([self._flushing])  # it may be recording another
        await self._take_back()


def _check_on_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        raise ConfigurationError(
            "BackgroundTasks(request) is for `async def`, which can await tasks.recorded(response): make "
            "this endpoint `async def` and await starlette.concurrency.run_in_threadpool(…) for what blocks "
            "in it; an endpoint of FastAPI takes tasks: BackgroundTasks as a parameter"
        ) from error


class Starting:
    """The keeper of a request that came before there was a runtime: the first call recorded starts it."""

    def __init__(self, begin: Callable[[], Awaitable[Keeper]]) -> None:
        self._begin = begin
        self._begun: Keeper | None = None

    async def start(self) -> Keeper:
        if self._begun is None:
            self._begun = await self._begin()
        return self._begun

    @property
    def outcome(self) -> Callable[[str], Awaitable[Any]]:
        return self._outcome

    async def _outcome(self, id: str) -> Any:
        return await (await self.start()).outcome(id)

    async def cancel(self, id: str) -> Record:
        return await (await self.start()).cancel(id)

    async def record(self, calls: Sequence[Call]) -> Sequence[Record]:
        return await (await self.start()).record(calls)

    async def release(self, records: Sequence[Record]) -> None:
        await (await self.start()).release(records)

    async def forget(self, records: Sequence[Record]) -> None:
        await (await self.start()).forget(records)

    async def in_thread(self, function: Callable[[], Any]) -> Any:
        return await (await self.start()).in_thread(function)

    def in_process_begins(self, task: BackgroundTask) -> None:
        self._started.in_process_begins(task)

    def in_process_failed(self, task: BackgroundTask, error: Exception) -> None:
        self._started.in_process_failed(task, error)

    def in_process_over(self) -> None:
        self._started.in_process_over()

    @property
    def _started(self) -> Keeper:
        assert self._begun is not None  # AttachedTasks starts it before it calls anything
        return self._begun

    def later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)


def _carry(response: Response, tasks: AttachedTasks) -> None:
    """Make `response` tell `tasks` when it is sent."""
    this: Any = response
    if not hasattr(response, CARRIED):
        setattr(response, CARRIED, [])
        this.__class__ = _carrying(this.__class__)
    getattr(response, CARRIED).append(tasks)


@lru_cache(KINDS)
def _carrying(kind: type[Response]) -> type[Response]:
    """The same class of response, which also tells. A call looks at the class only, never at the object."""

    async def call(self: Response, scope: Scope, receive: Receive, send: Send) -> None:
        carried: list[AttachedTasks] = getattr(self, CARRIED)
        setattr(self, CARRIED, [])  # who sends the same response to another client carries nothing
        await _Answer(carried, send).go(lambda sends: kind.__call__(self, scope, receive, sends))

    return type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


class _Answer:
    """A response on its way, and the calls that it carries."""

    def __init__(self, carried: Sequence[AttachedTasks], send: Send) -> None:
        self._carried = carried
        self._send = send
        self._whole = False

    async def go(self, respond: Callable[[Send], Awaitable[None]]) -> None:
        try:
            await respond(self._sends)
        except Exception:  # whatever the app's own code raises goes on to the server, as without us
            if self._whole:  # it was the response's own background that failed
                await self._sent()
            raise
        await self._sent()

    async def _sends(self, message: Message) -> None:
        for tasks in self._carried:
            tasks.answer_begins()  # first: a client may have got what a `send` that fails was given
        await self._send(message)
        last = message["type"].endswith(("http.response.body", "http.response.pathsend"))
        self._whole = self._whole or (last and not message.get("more_body"))

    async def _sent(self) -> None:
        for tasks in self._carried:
            await tasks.answer_sent()
