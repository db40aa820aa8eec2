"""Others who use the same ledger, each in a process or a thread of its own, told what to do by a pipe."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

from segundo.errors import SegundoError
from segundo.ledger import Ledger
from tests.ledger.suite import Clock, Store

SPAWN = multiprocessing.get_context("spawn")
PATIENCE = 20.0  # seconds until a test gives up on an actor


class Order(NamedTuple):
    """Call `method` of the actor's ledger. `together`: wait for the others at the barrier first."""

    method: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # noqa: RUF012  (never written)
    together: bool = False


class Barrier(Protocol):
    def wait(self, timeout: float | None = None) -> int: ...


class Actor:
    """One who carries out orders. What came of an order, or the error that it met, is its answer."""

    def __init__(self, connection: Connection, end: Callable[[], None], pid: int | None = None) -> None:
        self.connection = connection
        self._end = end
        self.pid = pid

    def begin(self, orders: Sequence[Order]) -> None:
        """Hand over orders, to be carried out one after another, and do not wait."""
        self.connection.send(list(orders))

    def answers(self) -> list[Any]:
        """What came of the orders of `begin`."""
        assert self.connection.poll(PATIENCE), "the actor does not answer"
        answers: list[Any] = self.connection.recv()
        return answers

    def do(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self.begin([Order(method, args, kwargs)])
        (answer,) = self.answers()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def meet(self, store: Store, owner: str) -> None:
        """Open a ledger on this store, and join it."""
        self.do("open", store)
        self.do("join", owner)

    def stop(self) -> None:
        self._end()

    # A process only

    def kill(self) -> None:
        """`kill -9`, and wait until it is gone."""
        assert self.pid is not None
        os.kill(self.pid, signal.SIGKILL)
        self._end()

    def pause(self) -> None:
        """Freeze it as SIGSTOP does, and return when it is frozen."""
        assert self.pid is not None
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        assert self.pid is not None
        os.kill(self.pid, signal.SIGCONT)


@contextmanager
def a_process(barrier: Barrier | None = None) -> Iterator[Actor]:
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_live, args=(theirs, barrier), daemon=True)
    process.start()
    theirs.close()

    def end() -> None:
        if process.exitcode is None:
            ours.close()
            process.join(PATIENCE)
            assert process.exitcode is not None, "the actor does not end"

    try:
        yield Actor(ours, end, process.pid)
    finally:
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGCONT)
        end()


@contextmanager
def a_thread(barrier: Barrier | None = None) -> Iterator[Actor]:
    ours, theirs = multiprocessing.Pipe()
    thread = threading.Thread(target=_live, args=(theirs, barrier), daemon=True)
    thread.start()

    def end() -> None:
        ours.close()
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the actor does not end"

    try:
        yield Actor(ours, end)
    finally:
        end()


def _live(connection: Connection, barrier: Barrier | None) -> None:
    """What an actor does all its life."""
    asyncio.run(_obey(connection, barrier))
    connection.close()


async def _obey(connection: Connection, barrier: Barrier | None) -> None:
    clock = Clock()
    store: Store | None = None
    ledger: Ledger | None = None
    while True:
        try:
            orders: list[Order] = connection.recv()
        except EOFError:
            break
        answers: list[Any] = []
        for order in orders:
            if order.together and barrier is not None:
                barrier.wait(PATIENCE)
            try:
                if order.method == "open":
                    store = order.args[0]
                    ledger = store.ledger(clock)
                    answers.append(await ledger.open())
                elif order.method == "die":
                    answers.append(await store.let_die(ledger))
                elif order.method == "move":
                    answers.append(clock.move(*order.args))
                else:
                    answers.append(await getattr(ledger, order.method)(*order.args, **order.kwargs))
            except SegundoError as error:
                answers.append(error)
        connection.send(answers)
    if store is not None and ledger is not None:
        await store.let_die(ledger)  # a thread's end is that of its process, too
