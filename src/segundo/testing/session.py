"""What the apps and the fixtures of one run of pytest share."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from segundo.context import Home
from segundo.errors import ConfigurationError
from segundo.ledger.sqlite import MEMORY
from segundo.ledger.stores import on_a_server
from segundo.names import Names
from segundo.runtime import Runtime
from segundo.settings import DEFAULTS, Settings
from segundo.testing.runtimes import PATIENCE, InlineTested, RealTested, TestedRuntime
from segundo.testing.trial import Present, Trial

Work = Callable[[], Coroutine[Any, Any, None]]


class Session(Present):
    """The runtimes of all apps that run, and the trial of the test that runs now."""

    def __init__(self) -> None:
        super().__init__()
        self._runtimes: list[TestedRuntime] = []

    def runtime(
        self, settings: Settings, names: Names, home: Home, carry: Mapping[str, ContextVar[Any]]
    ) -> Runtime:
        """A runtime for an app that starts now."""
        runtime: TestedRuntime
        if self.trial.folder is None:
            runtime = InlineTested(self, settings, names, home, carry)
        else:
            configured = str(DEFAULTS["ledger"]) if settings.ledger == MEMORY else settings.ledger
            # A file, whatever the app has elsewhere: a test never touches a server that settings name.
            name = str(DEFAULTS["ledger"]) if on_a_server(configured) else Path(configured).name
            ledger = str(self.trial.folder / name)
            real = settings.changed("real_ledger", ledger=ledger, freeze=False)
            runtime = RealTested(self, real, names, home, carry)
        self._runtimes = [*self._open(), runtime]
        return runtime

    def _open(self) -> list[TestedRuntime]:
        return [runtime for runtime in self._runtimes if not runtime.closed]

    def be_real(self, folder: Path) -> None:
        if any(runtime.in_lifespan for runtime in self._open()):
            raise ConfigurationError(
                "an app runs already in test mode: start it after real_ledger, by a fixture that asks for it"
            )
        self.trial.folder = folder

    def move(self, seconds: float) -> None:
        self.trial.moved += seconds
        for runtime in self._open():
            runtime.ledger.clock_moved()

    def end_test(self) -> None:
        """What no lifespan ends, ends now: the next test meets nothing of this one. Raises what is unseen."""
        try:
            self.raise_unseen()
        finally:
            self.trial = Trial()
            for runtime in self._open():
                if not runtime.in_lifespan or runtime.loop.is_closed():
                    _in_a_loop_of_its_own(runtime.abandon)
            self._runtimes = self._open()

    def drain(self) -> Awaitable[None]:
        if _on_a_loop():
            return self._drain()
        for runtime in self._open():
            _finish(runtime)
        self.raise_unseen()
        return Done()

    async def _drain(self) -> None:
        for runtime in self._open():
            if runtime.loop is not asyncio.get_running_loop() and runtime.loop.is_running():
                drained = asyncio.run_coroutine_threadsafe(runtime.drain_for_test(), runtime.loop)
                await asyncio.wrap_future(drained)
            else:
                await runtime.drain_for_test()
        self.raise_unseen()


class Done:
    """What has been done already; to await it takes no time, on any loop."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _finish(runtime: TestedRuntime) -> None:
    """Drain from a `def`, on the loop that the app runs on if there still is one."""
    if runtime.loop.is_running():  # in another thread: that of a TestClient, or of a server
        asyncio.run_coroutine_threadsafe(runtime.drain_for_test(), runtime.loop).result(2 * PATIENCE)
    elif not runtime.loop.is_closed():  # in this one, between the fixtures and the test that share it
        runtime.loop.run_until_complete(runtime.drain_for_test())
    else:
        _in_a_loop_of_its_own(runtime.drain_for_test)


def _in_a_loop_of_its_own(work: Work) -> None:
    """In a thread, since asyncio.run would take this one's current loop away."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(work())).result()
