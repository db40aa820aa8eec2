"""`Depends` in tasks: what FastAPI does for an endpoint, it does for a task."""

import asyncio
import contextlib
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Annotated, Any

import aiosqlite
import pytest
from fastapi import (
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    FastAPI,
    File,
    Form,
    Header,
    HTTPException,
    Path,
    Query,
    Request,
    Security,
)
from fastapi.security import HTTPBearer, SecurityScopes

import segundo as package
from segundo import INJECTED, Retry, Segundo, TaskContext, current, task
from segundo.errors import ArgumentError, DeclarationError
from tests.support import wait_until_async
from tests.web.apps import ended, lifespan, outcome, records, running
from tests.web.tasks import events, note

AGAIN = Retry(attempts=2, wait="constant", base=0)


# Values


def get_price(request: Request) -> int:
    return request.app.state.price if hasattr(request.app.state, "price") else 5


class Mailer:
    """A class dependency, with one of its own."""

    def __init__(self, price: Annotated[int, Depends(get_price)]) -> None:
        self.price = price


async def get_mailer(price: Annotated[int, Depends(get_price)]) -> Mailer:
    return Mailer(price)


@task
async def annotated(to: str, mailer: Annotated[Mailer, Depends(get_mailer)] = INJECTED) -> list[Any]:
    return [to, mailer.price]


@task
async def without_default(to: str, *, mailer: Annotated[Mailer, Depends(get_mailer)]) -> list[Any]:
    return [to, mailer.price]


@task
async def old_style(to: str, mailer: Mailer = Depends(get_mailer)) -> list[Any]:
    return [to, mailer.price]


@task
async def of_a_class(to: str, mailer: Annotated[Mailer, Depends()] = INJECTED) -> list[Any]:
    return [to, mailer.price]


@task
async def in_quotes(to: str, mailer: "Annotated[Mailer, Depends(get_mailer)]" = INJECTED) -> list[Any]:
    return [to, mailer.price]


@task
async def with_none(to: str, mailer: Annotated[Mailer, Depends(get_mailer)] = None) -> list[Any]:  # type: ignore[assignment]  # as people write it
    return [to, mailer.price]


@task
def in_a_thread(to: str, mailer: Annotated[Mailer, Depends(get_mailer)] = INJECTED) -> list[Any]:
    assert threading.current_thread().name.startswith("segundo")
    return [to, mailer.price]


WAYS = [annotated, without_default, old_style, of_a_class, in_quotes, with_none, in_a_thread]


@pytest.mark.parametrize("function", WAYS)
async def test_a_task_declares_dependencies_in_each_of_fastapis_ways(segundo: Segundo, function: Any) -> None:
    record = await outcome(segundo, function, "ada")
    assert (record["state"], record["result"]) == ("succeeded", ["ada", 5])


async def test_an_injected_value_is_not_recorded(segundo: Segundo) -> None:
    assert (await outcome(segundo, annotated, "ada"))["arguments"] == '{"to":"ada"}'


async def test_an_injected_value_cannot_be_passed_to_a_call(segundo: Segundo) -> None:
    with pytest.raises(ArgumentError, match="'mailer' cannot be recorded: it is injected when the task runs"):
        await segundo.submit(annotated, "ada", Mailer(1))


async def test_a_task_called_directly_takes_what_it_is_given() -> None:
    assert await annotated("ada", Mailer(7)) == ["ada", 7]
    with pytest.raises(AttributeError, match="injected when the task runs"):
        await annotated("ada")


def plain(to: str, price: Annotated[int, Depends(get_price)]) -> None:
    note(f"{to} {price}")


async def test_a_plain_function_has_dependencies_too() -> None:
    app = FastAPI()
    Segundo(app)

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(plain, "ada")

    async with running(app) as client:
        await client.get("/")
        await ended(1)
    assert events() == ["ada 5"]


# As FastAPI has it


made: list[object] = []


def get_made() -> object:
    made.append(object())
    return made[-1]


def get_again(value: Annotated[object, Depends(get_made)]) -> object:
    return value


@task
async def cached(
    first: Annotated[object, Depends(get_made)],
    second: Annotated[object, Depends(get_again)],
    anew: Annotated[object, Depends(get_made, use_cache=False)],
) -> list[bool]:
    return [first is second, first is anew]


async def test_a_value_is_made_once_for_an_attempt_and_anew_for_the_next(segundo: Segundo) -> None:
    made.clear()
    assert (await outcome(segundo, cached))["result"] == [True, False]
    await segundo.submit(cached)
    await ended(2)
    assert len(made) == 4


tenant: ContextVar[str] = ContextVar("tenant", default="none")


async def set_tenant() -> None:
    tenant.set("acme")


@task
async def sees_tenant(_: Annotated[None, Depends(set_tenant)]) -> str:
    return tenant.get()


@task
def sees_tenant_in_a_thread(_: Annotated[None, Depends(set_tenant)]) -> str:
    return tenant.get()


@pytest.mark.parametrize("function", [sees_tenant, sees_tenant_in_a_thread])
async def test_a_task_sees_the_context_variables_that_its_dependencies_set(
    segundo: Segundo, function: Any
) -> None:
    assert (await outcome(segundo, function))["result"] == "acme"
    assert tenant.get() == "none"


@task
async def scoped(scopes: SecurityScopes, request: Request, price: Annotated[int, Security(get_price)]) -> Any:
    return [scopes.scopes, request.method, price]


async def test_what_fastapi_gives_without_depends_is_given(segundo: Segundo) -> None:
    assert (await outcome(segundo, scoped))["result"] == [[], "POST", 5]


@task
async def asks_who_runs(context: Annotated[TaskContext, Depends(current)], request: Request) -> list[Any]:
    return [context is current(), context.attempt, request.app is context.app]


async def test_the_attempt_itself_is_a_dependency(segundo: Segundo) -> None:
    assert (await outcome(segundo, asks_who_runs))["result"] == [True, 1, True]


async def test_overrides_are_those_of_the_app_as_they_are_when_the_task_runs(segundo: Segundo) -> None:
    assert (await outcome(segundo, annotated, "ada"))["result"] == ["ada", 5]
    segundo.app.dependency_overrides[get_price] = lambda: 7
    first = await (await segundo.submit(annotated, "ada")).result()
    segundo.app.dependency_overrides = {get_mailer: lambda: Mailer(9)}
    assert [first, await (await segundo.submit(annotated, "ada")).result()] == [["ada", 7], ["ada", 9]]


# What a request has, and a task has not


def reads_a_header(user_agent: Annotated[str, Header()]) -> str:
    return user_agent


def reads_a_query(page: int = 1) -> int:
    return page


def reads_a_cookie(session: Annotated[str | None, Cookie()] = None) -> str | None:
    return session


def reads_a_body(body: dict[str, str]) -> dict[str, str]:
    return body


bearer = HTTPBearer()

READERS = {
    "'user-agent' from the headers": reads_a_header,
    "'page' from the query": reads_a_query,
    "'session' from the cookies": reads_a_cookie,
    "'body' from the body": reads_a_body,
    "the credentials": bearer,
}


def below(_: Annotated[Any, Depends(reads_a_header)]) -> None: ...


@pytest.mark.parametrize("what", READERS)
async def test_a_dependency_that_reads_a_request_is_refused_when_the_task_is_first_offered(
    segundo: Segundo, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reads(value: Any = Depends(READERS[what])) -> None: ...

    reads.__qualname__ = reads.__name__ = "reads"
    monkeypatch.setitem(globals(), "reads", reads)
    for function in (task(name=what)(reads), reads):
        with pytest.raises(DeclarationError, match=f"reads {what} of a request.*pass the value as an arg"):
            await segundo.submit(function)
    assert records() == []


@task
async def reads_far_below(_: Annotated[None, Depends(below)]) -> None: ...


async def test_so_is_one_whose_own_dependency_does(segundo: Segundo) -> None:
    with pytest.raises(DeclarationError, match=r"reads_far_below\(\) depends on reads_a_header\(\)"):
        await segundo.submit(reads_far_below)


NEEDS = {
    "request.headers['x']": lambda request: request.headers["x"],
    "request.query_params['x']": lambda request: request.query_params["x"],
    "request.path_params['x']": lambda request: request.path_params["x"],
    "request.cookies['x']": lambda request: request.cookies["x"],
    "request.session": lambda request: request.session,
    "request.auth": lambda request: request.auth,
    "request.user": lambda request: request.user,
    "the body of the request": lambda request: request.body(),
    "the form of the request": lambda request: request.form(),
    "request.url_for('x')": lambda request: request.url_for("x"),
}


def get_look(request: Request) -> Any:
    async def look(what: str) -> None:
        found = NEEDS[what](request)
        if inspect.isawaitable(found):
            await found

    def look_whether() -> list[Any]:
        headers, query, cookies = request.headers, request.query_params, request.cookies
        return [
            headers.get("x"),
            query.get("x", "none"),
            cookies.get("x"),
            headers.getlist("x"),
            "x" in query,
        ]

    return look, look_whether


@task
async def looks(what: str, look: Annotated[Any, Depends(get_look)]) -> Any:
    needs, whether = look
    return await needs(what) if what else whether()


@pytest.mark.parametrize("what", NEEDS)
async def test_a_dependency_that_needs_what_only_a_request_has_is_told_that_there_is_none(
    segundo: Segundo, what: str
) -> None:
    record = await outcome(segundo, looks, what)
    assert (record["state"], record["reason"]) == ("failed", "NoRequest")
    assert what in record["error"]["message"]
    assert "there is no request when a task runs; read it in the endpoint" in record["error"]["message"]


async def test_who_only_looks_whether_a_request_has_it_finds_that_it_has_not(segundo: Segundo) -> None:
    assert (await outcome(segundo, looks, ""))["result"] == [None, "none", None, [], False]


READ = [Header, Query, Cookie, Path, Body, Form, File]


@pytest.mark.parametrize("mark", READ, ids=lambda mark: mark.__name__)
@pytest.mark.parametrize("way", ["annotated", "default"])
def test_a_tasks_own_parameter_that_is_to_be_read_from_a_request_is_refused_where_it_is_declared(
    mark: Any, way: str
) -> None:
    if way == "annotated":

        def reads(first: str, value: Annotated[str | None, mark()] = None) -> None: ...
    else:

        def reads(first: str, value: str = mark()) -> None: ...

    reads.__qualname__ = reads.__name__
    says = rf"reads\(\): parameter 'value' is a {mark.__name__}\(\), .*pass it to add_task"
    with pytest.raises(DeclarationError, match=says):
        task(reads)


def marked(value: Annotated[str, Header()] = "none") -> None:
    note(value)


async def test_a_plain_function_with_such_a_parameter_is_called_as_fastapi_calls_it(segundo: Segundo) -> None:
    await segundo.submit(marked, "passed")
    await segundo.submit(marked)
    await ended(2)
    assert sorted(events()) == ["none", "passed"]


def test_a_parameter_that_cannot_be_passed_by_name_is_refused_where_it_is_declared() -> None:
    def positional(price: int = Depends(get_price), /) -> None: ...
    def before_rest(price: int = Depends(get_price), *rest: int) -> None: ...

    for function in (positional, before_rest):
        function.__qualname__ = function.__name__
        with pytest.raises(DeclarationError, match="'price' is injected by name"):
            task(function)


# Opened and closed


@contextlib.contextmanager
def a_session() -> Generator[str]:
    note("open")
    try:
        yield "session"
    except BaseException as error:
        note(f"rollback {type(error).__name__}")
        raise
    else:
        note("commit")
    finally:
        note("close")


async def session() -> AsyncGenerator[str]:
    with a_session() as session:
        yield session


def session_in_a_thread() -> Generator[str]:
    with a_session() as session:
        yield session


Session = Annotated[str, Depends(session)]
OfEndpoint = Annotated[str, Depends(session, scope="function")]
OfThread = Annotated[str, Depends(session_in_a_thread)]


@task(retry=AGAIN)
async def works(fail: bool, session: Session) -> str:
    note(f"work {current().attempt}")
    if fail:
        raise ValueError("no")
    return session


@task(retry=AGAIN)
async def works_in_function_scope(fail: bool, session: OfEndpoint) -> str:
    return await works(fail, session)


@task(retry=AGAIN)
def works_in_a_thread(fail: bool, session: OfThread) -> str:
    note(f"work {current().attempt}")
    if fail:
        raise ValueError("no")
    return session


WORKS = [works, works_in_function_scope, works_in_a_thread]


@pytest.mark.parametrize("function", WORKS)
async def test_a_yield_dependency_is_opened_and_closed_once_for_an_attempt(
    segundo: Segundo, function: Any
) -> None:
    assert (await outcome(segundo, function, False))["state"] == "succeeded"
    assert events() == ["open", "work 1", "commit", "close"]


@pytest.mark.parametrize("function", WORKS)
async def test_it_sees_the_error_of_each_attempt(segundo: Segundo, function: Any) -> None:
    record = await outcome(segundo, function, True)
    assert (record["state"], record["reason"], record["failures"]) == ("failed", "ValueError", 2)
    failed = ["rollback ValueError", "close"]
    assert events() == ["open", "work 1", *failed, "open", "work 2", *failed]


@task(timeout=0.05)
async def too_slow(session: Session) -> None:
    await asyncio.sleep(60)


async def test_it_is_rolled_back_at_the_timeout(segundo: Segundo) -> None:
    assert (await outcome(segundo, too_slow))["reason"] == "TimedOut"
    assert events() == ["open", "rollback CancelledError", "close"]


@task(timeout=0.05)
def too_slow_in_a_thread(session: Session) -> None:
    while not current().cancelled:
        threading.Event().wait(0.005)
    note("the thread has ended")


async def test_it_stays_open_until_a_thread_past_its_timeout_has_ended(segundo: Segundo) -> None:
    record = await outcome(segundo, too_slow_in_a_thread)
    assert (record["reason"], record["error"]["causes"]) == ("TimedOut", [])
    assert events() == ["open", "the thread has ended", "rollback TimedOut", "close"]


@task(timeout=0.05)
def ends_itself(session: Session) -> None:
    while True:
        current().check()
        threading.Event().wait(0.005)


async def test_it_sees_the_cancellation_of_a_def_that_ends_itself_at_its_timeout(segundo: Segundo) -> None:
    assert (await outcome(segundo, ends_itself))["reason"] == "TimedOut"
    assert events() == ["open", "rollback CancelledError", "close"]


async def never(_: Session) -> None:
    note("waits")
    await asyncio.sleep(60)


@task(timeout=0.05)
async def stuck_dependency(_: Annotated[None, Depends(never)]) -> None:
    note("never")


async def test_a_dependency_takes_its_time_from_the_attempt(segundo: Segundo) -> None:
    assert (await outcome(segundo, stuck_dependency))["reason"] == "TimedOut"
    assert events() == ["open", "waits", "rollback CancelledError", "close"]


@task
async def waits_for_ever(session: Session) -> None:
    note("waits")
    await asyncio.sleep(3600)


async def test_it_is_rolled_back_when_the_task_is_cancelled_and_when_the_app_stops() -> None:
    app = FastAPI()
    segundo = Segundo(app, grace=0)
    async with lifespan(app):
        handle = await segundo.submit(waits_for_ever)
        await wait_until_async(lambda: "waits" in events())
        await segundo.ledger.cancel(str(handle.id))
        (attempt,) = segundo._life.runtime._embedded._running.values()  # the beat would tell it, in a while
        attempt.stop(package.runner.Stop.CANCELLED)
        assert [row["state"] for row in await ended(1)] == ["cancelled"]
        await segundo.submit(waits_for_ever)
        await wait_until_async(lambda: events().count("waits") == 2)
    assert events() == ["open", "waits", "rollback CancelledError", "close"] * 2
    assert {row["state"] for row in records()} == {"cancelled", "queued"}


async def fails_at_the_end() -> AsyncGenerator[None]:
    yield
    raise OSError("the commit failed")


@task
async def succeeds(_: Annotated[None, Depends(fails_at_the_end)]) -> str:
    return "done"


async def test_exit_code_that_fails_fails_the_attempt(segundo: Segundo) -> None:
    record = await outcome(segundo, succeeds)
    assert (record["state"], record["error"]["message"]) == ("failed", "the commit failed")


async def refuses() -> None:
    raise HTTPException(403, "not today")


@task
async def refused(_: Annotated[None, Depends(refuses)]) -> None: ...


class Own(Exception):
    """An error of the user's own."""


@task
async def raises_own(session: Session) -> None:
    raise Own("no")


@pytest.mark.parametrize("function", [refused, raises_own])
async def test_an_error_is_recorded_as_it_was_raised(segundo: Segundo, function: Any) -> None:
    error = (await outcome(segundo, function))["error"]
    assert error["type"].rpartition(".")[2] in ("HTTPException", "Own")
    assert error["causes"] == []
    assert error["traceback"].splitlines()[1].strip().startswith(f'File "{__file__}"')
    assert "site-packages/fastapi" not in error["traceback"]


# Pools


@asynccontextmanager
async def with_a_pool(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    async with aiosqlite.connect("shop.db") as pool:
        await pool.execute("CREATE TABLE orders (name TEXT)")
        yield {"pool": pool, "loop": asyncio.get_running_loop()}


async def transaction(request: Request) -> AsyncGenerator[aiosqlite.Connection]:
    assert request.state.loop is asyncio.get_running_loop()
    pool: aiosqlite.Connection = request.state.pool
    try:
        yield pool
    except BaseException:
        await pool.rollback()
        raise
    await pool.commit()


Pool = Annotated[aiosqlite.Connection, Depends(transaction)]


@task
async def order(name: str, fail: bool, pool: Pool) -> None:
    await pool.execute("INSERT INTO orders VALUES (?)", (name,))
    if fail:
        raise ValueError("no")


@task
async def orders(pool: Pool) -> list[str]:
    async with pool.execute("SELECT name FROM orders") as rows:
        return [name async for (name,) in rows]


async def test_a_pool_opened_in_the_lifespan_serves_tasks_on_the_apps_loop() -> None:
    app = FastAPI(lifespan=with_a_pool)
    segundo = Segundo(app)
    async with lifespan(app):
        for fail in (False, True):
            handle = await segundo.submit(order, f"fail={fail}", fail)
            with contextlib.suppress(package.TaskFailed):
                await handle.result()
        assert await (await segundo.submit(orders)).result() == ["fail=False"]


# Child calls


def audits(tasks: BackgroundTasks) -> None:
    tasks.add_task(note, "by a dependency")


@task(retry=AGAIN)
async def adds(fail_first: bool, tasks: BackgroundTasks, _: Annotated[None, Depends(audits)]) -> None:
    tasks.add_task(note, "by the task")
    if fail_first and current().attempt == 1:
        raise ValueError("no")


@pytest.mark.parametrize("fail_first", [False, True])
async def test_background_tasks_in_a_task_are_its_child_calls(segundo: Segundo, fail_first: bool) -> None:
    handle = await segundo.submit(adds, fail_first)
    assert await handle.result() is None
    await ended(3)
    assert events() == ["by a dependency", "by the task"]


# With and without


async def test_a_task_without_dependencies_goes_by_no_request(segundo: Segundo) -> None:
    await outcome(segundo, note, "x")
    assert segundo._dependencies._inner == {}
