"""The app under the storm: real endpoints that add real calls, each of which writes down that it ran.

Run by uvicorn as `tests.soak.app:app`, with the history's path in SOAK_HISTORY.
"""

import asyncio
import functools
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import fastapi
from fastapi import Depends, FastAPI, Header, HTTPException, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.background import BackgroundTask

from segundo import BackgroundTasks, Handle, Segundo, runtime, task
from segundo.executors import embedded
from tests.soak import broken
from tests.soak.history import Born, Closed, Journal, Opened
from tests.soak.processes import process_of
from tests.soak.traffic import CallPlan, Ending, RequestPlan
from tests.soak.witness import AGAIN, Stumble, Witness

journal = Journal(os.environ["SOAK_HISTORY"])
me = process_of(os.getpid()) or "?"
witness = Witness(journal, lambda: me)

# A storm is short: it must see as much of the housekeeping as an app does in hours.
embedded.BEAT = 0.3
runtime.RESCUE_EVERY = 0.5

journal.append(Born(process=me, group=os.getpgrp()))
broken.install(os.environ.get("SOAK_BROKEN"))
app = FastAPI()
Segundo(app)


def plain_def(call: str, seconds: float, raises: int) -> None:
    with witness.attempt(call, raises):
        time.sleep(seconds)


async def plain_async(call: str, seconds: float, raises: int) -> None:
    with witness.attempt(call, raises):
        await asyncio.sleep(seconds)


@task(retry=AGAIN)
def task_def(call: str, seconds: float, raises: int) -> str:
    with witness.attempt(call, raises):
        time.sleep(seconds)
    return call


@task(retry=AGAIN)
async def task_async(call: str, seconds: float, raises: int) -> str:
    with witness.attempt(call, raises):
        await asyncio.sleep(seconds)
    return call


def inline(call: str) -> None:
    with witness.in_process(call):
        pass


def add(tasks: Any, plan: RequestPlan) -> None:
    handles: list[Handle[Any]] = []
    for call in plan.calls:
        if call.function == "inline":
            handle = tasks.add_task(functools.partial(inline, call.call))  # a partial cannot be recorded
        else:
            handle = tasks.add_task(function_of(call, handles), call.call, call.seconds, call.raises)
        handles.append(handle)


def function_of(call: CallPlan, handles: list[Handle[Any]]) -> Callable[..., Any]:
    if call.function == "plain_def":
        return plain_def
    if call.function == "plain_async":
        return plain_async
    declared = task_def if call.function == "task_def" else task_async
    if not call.delay and call.after is None:
        return declared
    return declared.options(delay=call.delay, after=None if call.after is None else handles[call.after])


async def life(x_request: Annotated[str, Header()]) -> AsyncIterator[None]:
    """Stands for the request's own session: what it commits at its exit must be there before a call runs."""
    journal.append(Opened(request=x_request, process=me))
    try:
        yield
    finally:
        journal.append(Closed(request=x_request, process=me))


async def commit(x_ending: Annotated[Ending, Header()]) -> AsyncIterator[None]:
    """Stands for a commit of the endpoint's own, which may fail."""
    yield
    if x_ending == "no commit":
        raise Stumble("the endpoint's own commit failed")


own = [Depends(life), Depends(commit, scope="function")]


def end(plan: RequestPlan) -> Any:
    """How the request goes on, once its calls are added."""
    match plan.ending:
        case "raises":
            raise Stumble("an endpoint that fails after it added its calls")
        case "http error":
            raise HTTPException(409)
        case "bad body":
            return {"request": ["not a text"]}  # does not fit the response model: 500
        case "not found":
            return Response(status_code=404)
        case "responds":
            return JSONResponse({"request": plan.request}, background=BackgroundTask(nothing))
        case "streams":
            return StreamingResponse(body(plan))
        case _:
            return {"request": plan.request}


def nothing() -> None:
    """A task behind the endpoint's own response, which must not hide the others."""


async def body(plan: RequestPlan) -> AsyncIterator[bytes]:
    """A slow response: its calls are in the ledger all that time, and must not start."""
    for _ in range(5):
        yield plan.request.encode()
        await asyncio.sleep(0.1)


@app.post("/async", dependencies=own, response_model=dict[str, str])
async def in_the_loop(plan: RequestPlan, tasks: fastapi.BackgroundTasks) -> Any:
    add(tasks, plan)
    return end(plan)


@app.post("/def", dependencies=own, response_model=dict[str, str])
def in_a_thread(plan: RequestPlan, tasks: BackgroundTasks) -> Any:
    add(tasks, plan)
    return end(plan)


def added(tasks: BackgroundTasks, x_plan: Annotated[str, Header()]) -> None:
    """A dependency that adds the calls of a request whose body is then found invalid."""
    add(tasks, RequestPlan.model_validate_json(x_plan))


@app.post("/invalid", dependencies=[*own, Depends(added)])
async def never_reached(number: Annotated[int, fastapi.Body(embed=True)]) -> int:
    return number
