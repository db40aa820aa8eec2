"""The app under chaos, run as `tests.chaos.app:app` on one host and by Celery workers on others.

Its tasks write down that they began and ended, in the history that CHAOS_HISTORY names.
"""

import asyncio
import functools
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, Header, HTTPException

from segundo import Handle, Segundo, current, runtime, task
from segundo.executors import embedded
from segundo.executors.celery import relay
from segundo.executors.celery.by_message import ByMessage
from segundo.executors.celery.publisher import Publisher
from segundo.ledger.postgres import PostgresLedger
from segundo.record import Record
from tests.chaos import broken
from tests.chaos.traffic import CallPlan, RequestPlan
from tests.soak.broken import put
from tests.soak.history import Born, Closed, Delivered, Journal, Opened, Outage, Published
from tests.soak.processes import process_of
from tests.soak.witness import AGAIN, Witness

SECOND = 1_000_000_000
LEASE = float(os.environ["CHAOS_LEASE"])
journal = Journal(os.environ["CHAOS_HISTORY"])

# A storm is short: it must see as much of the housekeeping as an app does in hours.
embedded.BEAT = 1.0
runtime.RESCUE_EVERY = 0.5
relay.LEASE = 20.0
how: Any = PostgresLedger.__init__
how.__kwdefaults__["lease"] = LEASE


def me() -> str:
    return _name(os.getpid())


@functools.cache
def _name(pid: int) -> str:
    return process_of(pid) or "?"


witness = Witness(journal, me)


# What is seen of messages


def watch() -> None:
    send, take = Publisher.send, ByMessage.take

    def seen_send(self: Publisher, records: Sequence[Record]) -> Sequence[Record]:
        began = time.monotonic_ns()
        full = send(self, records)
        sent = tuple(record.id for record in records if record not in full)
        journal.append(Published(t=began, records=sent))
        return full

    def seen_take(self: ByMessage, id: str) -> Any:
        journal.append(Delivered(record=id, process=me()))
        settlement = take(self, id)
        if settlement is None:
            journal.append(Delivered(record=id, process=me(), dropped=True))
        return settlement

    put(Publisher, "send", seen_send)
    put(ByMessage, "take", seen_take)


def starve(every: float = 0.1) -> None:
    """Say when this process had no turn for so long that it may have been taken for dead."""
    last = time.monotonic_ns()
    while True:
        time.sleep(every)
        now = time.monotonic_ns()
        if now - last > LEASE / 3 * SECOND:
            robs = last + round(LEASE / 2 * SECOND) if now - last > LEASE / 2 * SECOND else None
            journal.append(Outage(t=last, processes=(me(),), until=now, robs=robs))
        last = now


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    journal.append(Born(process=me(), group=os.getpgrp()))
    threading.Thread(target=starve, daemon=True).start()
    yield


watch()
broken.install(os.environ.get("CHAOS_BROKEN"))
app = FastAPI(lifespan=lifespan)
segundo = Segundo(app)
if "CHAOS_VISIBILITY" in os.environ:
    segundo.celery.conf.broker_transport_options = {
        "visibility_timeout": float(os.environ["CHAOS_VISIBILITY"]),
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "unacked_restore_limit": 2,  # else a slow machine is given more copies than it can drop
    }


# The tasks


def plain_def(call: str, seconds: float, raises: int) -> None:
    with witness.attempt(call, raises):
        time.sleep(seconds)


async def plain_async(call: str, seconds: float, raises: int) -> None:
    with witness.attempt(call, raises):
        await asyncio.sleep(seconds)


def inline(call: str) -> None:
    with witness.in_process(call):
        pass


def begin(child: str | None) -> None:
    if child is not None:
        current().add_task(task_async.options(queue="side"), child, 0.0, 0, None, 0)


@task(retry=AGAIN)
def task_def(call: str, seconds: float, raises: int, child: str | None, steps: int) -> int:
    with witness.attempt(call, raises) as claim:
        begin(child)
        for step in range(steps):
            current().progress(step + 1, total=steps)
        time.sleep(seconds)
    return claim  # so the record says whose outcome it has


@task(retry=AGAIN)
async def task_async(call: str, seconds: float, raises: int, child: str | None, steps: int) -> int:
    with witness.attempt(call, raises) as claim:
        begin(child)
        for step in range(steps):
            current().progress(step + 1, total=steps)
        await asyncio.sleep(seconds)
    return claim


# The endpoints


def add(tasks: BackgroundTasks, plan: RequestPlan) -> list[str]:
    """Add the calls; the ids of those that are to be cancelled."""
    handles: list[Handle[Any]] = []
    for call in plan.calls:
        handles.append(_add(tasks, call, handles))
    return [handle.id for handle, call in zip(handles, plan.calls, strict=True) if call.cancel and handle.id]


def _add(tasks: Any, call: CallPlan, before: list[Handle[Any]]) -> Handle[Any]:
    if call.function == "inline":
        return tasks.add_task(functools.partial(inline, call.call))  # a partial cannot be recorded
    if call.function in ("plain_def", "plain_async"):
        plain: Callable[..., Any] = plain_def if call.function == "plain_def" else plain_async
        return tasks.add_task(plain, call.call, call.seconds, call.raises)
    declared = task_def if call.function == "task_def" else task_async
    options = declared.options(
        delay=call.delay,
        queue=call.queue,
        priority=call.priority,
        key=call.key,
        after=None if call.after is None else before[call.after],
    )
    return tasks.add_task(options, call.call, call.seconds, call.raises, call.child, call.steps)


async def life(x_request: Annotated[str, Header()]) -> AsyncIterator[None]:
    """Stands for the request's own session: what it commits at its exit must be there before a call runs."""
    journal.append(Opened(request=x_request, process=me()))
    try:
        yield
    finally:
        journal.append(Closed(request=x_request, process=me()))


def end(plan: RequestPlan, ids: list[str]) -> list[str]:
    if plan.ending == "raises":
        raise HTTPException(409)
    return ids


@app.post("/async", dependencies=[Depends(life)])
async def in_the_loop(plan: RequestPlan, tasks: BackgroundTasks) -> list[str]:
    return end(plan, add(tasks, plan))


@app.post("/def", dependencies=[Depends(life)])
def in_a_thread(plan: RequestPlan, tasks: BackgroundTasks) -> list[str]:
    return end(plan, add(tasks, plan))


@app.post("/cancel/{id}")
async def cancel(id: str) -> str:
    return (await segundo.cancel(id)).state
