"""One attempt, for every executor: decode, call, judge. Out comes a settlement; storing it is the caller's.

One meaning of retry, timeout, cancel and result lives here and nowhere else.
"""

import asyncio
import json
import logging
import random
from collections.abc import Mapping
from contextvars import Context, ContextVar, copy_context
from enum import StrEnum
from functools import partial
from typing import Any

from segundo.codec import FORMAT, Value
from segundo.context import Children, Home, Say, TaskContext, enter
from segundo.errors import PayloadError, ResultError, UnknownTask
from segundo.failure import describe
from segundo.ledger import Settlement
from segundo.names import Names
from segundo.record import Call, Record, State
from segundo.reports import Reports, Store
from segundo.task import Task
from segundo.threads import Threads

logger = logging.getLogger("segundo")

SHORTEST_PUT_OFF, LONGEST_PUT_OFF = 1.0, 60.0  # seconds, while nobody here knows the task
UNKNOWN_FOR_GOOD = 7 * 86400.0  # seconds after which an unknown task has failed
CARRIED = Value(dict[str, Any])


class Stop(StrEnum):
    """Why an attempt was told to end."""

    TIMED_OUT = "TimedOut"
    CANCELLED = "Cancelled"
    SHUTDOWN = "Shutdown"
    LOST = "Lost"  # another holds the claim: whatever comes out is dropped


class TimedOut(Exception):
    """An attempt took longer than its task's timeout."""


class WorkerLost(Exception):
    """A plain function was stopped by the shutdown of its process; it is not started a second time."""


class Attempt:
    """One counted run of a record, from the moment it is claimed until its settlement is stored."""

    __slots__ = ("beside", "children", "context", "record", "running", "stopped", "task")

    def __init__(
        self, record: Record, home: Home, say: Say, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self.record = record
        self.children = Children()
        self.context = TaskContext(home, self.children, record, say, loop)
        self.beside = loop is not None  # it runs in a thread that is its own, and not on the loop
        self.stopped: Stop | None = None
        self.running: asyncio.Task[None] | None = None  # the executor's, until the outcome is known
        self.task: asyncio.Task[None] | None = None  # while an `async def` runs: what to cancel

    def stop(self, why: Stop) -> None:
        """Tell the attempt to end. The first reason counts; a `def` only sees `current().cancelled`."""
        if self.stopped is None:
            self.stopped = why
            self.context.cancelled = True
            if self.task is not None:
                self.task.cancel()


class Runner:
    """Runs attempts. `carry`: the context variables that calls bring along; `chance`: jitter's randomness.

    `progress`: the ledger's, where what tasks say of theirs is stored.
    """

    def __init__(
        self,
        names: Names,
        threads: Threads,
        *,
        home: Home,
        carry: Mapping[str, ContextVar[Any]],
        chance: random.Random,
        progress: Store,
    ) -> None:
        self._names = names
        self._threads = threads
        self._home = home
        self._carry = carry
        self._chance = chance
        self._reports = Reports(progress)

    def attempt(self, record: Record) -> Attempt:
        """The attempt that this claim is."""
        return Attempt(record, self._home, self._reports.say)

    def needs_no_loop(self, record: Record) -> bool:
        """Whether its attempt may run in a thread: a `def` without dependencies and without a timeout."""
        try:
            task = self._names.resolve(record.task)
        except Exception:  # `run` says what is wrong
            return False
        return not (task.is_async or task.arguments.injected or task.timeout is not None)

    def attempt_beside(self, record: Record, loop: asyncio.AbstractEventLoop) -> Attempt:
        """The attempt that this claim is, for `run_beside`."""
        return Attempt(record, self._home, self._reports.say, loop)

    def run_beside(self, attempt: Attempt) -> Settlement:
        """`run`, in the calling thread, of what needs no loop: nothing in it ever waits."""
        running = self.run(attempt)
        try:
            Context().run(running.send, None)
        except StopIteration as end:
            settlement: Settlement = end.value
            return settlement
        running.close()
        raise RuntimeError("an attempt in a thread waited for an event loop")

    async def run(self, attempt: Attempt) -> Settlement:
        """Run one attempt to its end. Never raises: whatever happens is a settlement.

        It must run in an asyncio task of its own, in an empty context: what the task sets nobody else sees.
        """
        record = attempt.record
        try:
            task = self._names.resolve(record.task)
        except UnknownTask as error:
            return _unknown(record, error)
        except Exception as error:  # its module fails to import
            return _failed(record, error)
        try:
            args, kwargs = _decode(task, record)
            self._restore(record)
        except PayloadError as error:
            return _failed(record, error)
        enter(attempt.context)
        try:
            result = await self._call(task, attempt, args, kwargs)
            encoded = None if result is None or not task.keep_result else task.result.encode(result)
        except ResultError as error:
            return self._over(attempt, _failed(record, error))
        except BaseException as error:
            # CancelledError, SystemExit, GeneratorExit too: the end of the attempt, not of the process.
            return self._over(attempt, self._judge(task, attempt, error))
        progress, children = self._end(attempt)
        return Settlement(
            id=record.id,
            claim=record.claim,
            state=State.SUCCEEDED,
            result=encoded,
            children=children,
            progress=progress,
        )

    def _over(self, attempt: Attempt, settlement: Settlement) -> Settlement:
        """Of an attempt without success nothing is kept but how far it was."""
        progress, _ = self._end(attempt)
        return settlement._replace(progress=progress)

    def _end(self, attempt: Attempt) -> tuple[str | None, tuple[Call, ...]]:
        """What it has said last, and its child calls. In this order: reports drop what is over."""
        progress = self._reports.end(attempt.record.id, attempt.record.claim)
        return progress, attempt.children.close()

    async def _call(self, task: Task, attempt: Attempt, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if attempt.stopped is Stop.CANCELLED:  # (test_what_is_cancelled_before_its_first_step_never_begins)
            raise asyncio.CancelledError
        if attempt.beside:
            return task.function(*args, **kwargs)
        running = attempt.running or asyncio.current_task()  # to ask asyncio takes longer
        if task.arguments.injected:
            work, attempt.task = self._inject(task, attempt, args, kwargs), running
        elif task.is_async:
            work, attempt.task = task.function(*args, **kwargs), running
        else:
            work = self._call_in_thread(task, attempt, args, kwargs)
        timer = _timer(task, attempt)
        try:
            return await work
        finally:
            attempt.task = None
            if timer is not None:
                timer.cancel()

    async def _call_in_thread(
        self, task: Task, attempt: Attempt, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A `def` cannot be stopped: past its timeout it is still waited for, and only then has timed out.

        That is for its dependencies to see, and no CancelledError, from which an older FastAPI does not
        wake dependencies that are a `def`.
        """
        result = await self._threads.run(partial(copy_context().run, task.function, *args, **kwargs))
        if attempt.stopped is Stop.TIMED_OUT:
            raise _timed_out(task)
        return result

    async def _inject(
        self, task: Task, attempt: Attempt, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The task with its dependencies, which may be stopped like an `async def`; its thread may not."""

        async def call(injected: dict[str, Any]) -> Any:
            if task.is_async:
                return await task.function(*args, **kwargs, **injected)
            running, attempt.task = attempt.task, None
            try:
                return await self._call_in_thread(task, attempt, args, {**kwargs, **injected})
            finally:
                attempt.task = running

        return await self._home.inject(task, call)

    def _restore(self, record: Record) -> None:
        if record.carried is not None:
            for name, value in CARRIED.decode(record.carried).items():
                if name in self._carry:
                    self._carry[name].set(value)

    def _judge(self, task: Task, attempt: Attempt, error: BaseException) -> Settlement:
        """What an attempt that raised becomes: again, put back, cancelled, or failed."""
        record, stopped = attempt.record, attempt.stopped
        if stopped is Stop.CANCELLED:
            return _cancelled(record, error)
        if isinstance(error, asyncio.CancelledError) and stopped is not None:
            if stopped is Stop.SHUTDOWN and record.crash_limit > 0:
                return _put_back(record)
            if stopped is Stop.SHUTDOWN:
                return _failed(record, WorkerLost("the process was shut down before the attempt ended"))
        if stopped is Stop.TIMED_OUT and not isinstance(error, TimedOut):
            error = _caused(_timed_out(task), error)
        if record.failures_left and task.retry.covers(error):
            try:
                delay = task.retry.delay(record.failures + 1, error, self._chance)
            except Exception as broken:  # the task's own wait=… function
                return _failed(record, _caused(broken, error))
            return _because(error, record, State.QUEUED, delay=delay)
        return _failed(record, error)


def _put_back(record: Record) -> Settlement:
    """As if this attempt had never begun: why the one before it failed is known on."""
    return Settlement(
        id=record.id, claim=record.claim, state=State.QUEUED, reason=record.reason, counted=False
    )


def _decode(task: Task, record: Record) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if record.format != FORMAT:
        raise PayloadError(
            f"the arguments have format {record.format}, this version reads {FORMAT}; upgrade it"
        )
    if record.arguments is None:
        raise PayloadError("the arguments were wiped")
    return task.arguments.decode(record.arguments)


def _timer(task: Task, attempt: Attempt) -> asyncio.TimerHandle | None:
    if task.timeout is None:
        return None
    return asyncio.get_running_loop().call_later(task.timeout, attempt.stop, Stop.TIMED_OUT)


def _timed_out(task: Task) -> TimedOut:
    return TimedOut(f"the attempt took longer than its timeout of {task.timeout:g} s")


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def _unknown(record: Record, error: UnknownTask) -> Settlement:
    """Nobody here knows the task, but a newer or older process may: put it off, and give up after days."""
    age = (record.started_at or record.created_at) - record.created_at
    if age > UNKNOWN_FOR_GOOD:
        return _failed(record, error)
    delay = min(max(SHORTEST_PUT_OFF, age), LONGEST_PUT_OFF)
    return _because(error, record, State.QUEUED, delay=delay, counted=False)


def _cancelled(record: Record, error: BaseException) -> Settlement:
    """It ends as it was told, whatever it raised; what went wrong in its cleanup is kept, and logged."""
    own = None if isinstance(error, asyncio.CancelledError) else describe(error, secret=record.secret)
    if own is not None:
        why = json.loads(own)["traceback"]
        logger.warning("%s %s failed as it was cancelled: %s", record.printable_task, record.id, why)
    return Settlement(id=record.id, claim=record.claim, state=State.CANCELLED, reason="Cancelled", error=own)


def _failed(record: Record, error: BaseException) -> Settlement:
    return _because(error, record, State.FAILED)


def _because(
    error: BaseException, record: Record, state: State, *, delay: float = 0.0, counted: bool = True
) -> Settlement:
    return Settlement(
        id=record.id,
        claim=record.claim,
        state=state,
        reason=_reason(error),
        error=describe(error, secret=record.secret),
        delay=delay,
        counted=counted,
    )


def _reason(error: BaseException) -> str:
    return type(error).__name__


def log_failure(record: Record, settlement: Settlement) -> None:
    error = json.loads(settlement.error or "{}")
    why = error.get("traceback", settlement.reason)
    logger.error("%s %s failed: %s", record.printable_task, record.id, why)
