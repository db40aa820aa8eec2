"""What a test sees of its background tasks, and when they run."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from segundo.testing.seen import FailedCall, SeenCall, bound
from segundo.testing.session import Session


class Recorder:
    """The background tasks of this test: those of every app of its process, whoever calls it.

    `raise_failures`: whether a task that fails makes the test fail (it does). Set it to False, or look at
    `failed()`, where a test is about the failure.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def calls(self) -> Sequence[SeenCall]:
        """All calls that were made so far, in order: recorded, or run in process.

        Those of a request that failed or was refused are not among them, nor a duplicate by its key.
        """
        return tuple(self._session.trial.calls)

    def called(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Sequence[SeenCall]:
        """The calls of `function` with these arguments: an empty list, which is false, if there is none.

        By position or by name is the same. What is not given may be anything; `unittest.mock.ANY` and the
        like fit. TypeError for arguments that the function does not take.
        """
        wanted = bound(function, args, kwargs)
        return [call for call in self.calls if call.is_of(*wanted)]

    def failed(self) -> Sequence[FailedCall]:
        """The calls that ended `failed` so far. The test is taken to know of them: they no longer fail it."""
        trial = self._session.trial
        trial.unseen.clear()
        return tuple(trial.failures)

    @property
    def raise_failures(self) -> bool:
        return self._session.trial.raise_failures

    @raise_failures.setter
    def raise_failures(self, value: bool) -> None:
        self._session.trial.raise_failures = value

    def hold(self) -> None:
        """From now on calls are recorded but not run, until `drain()`.

        Those that run in process run all the same. RuntimeError with `real_ledger`, where nobody holds them.
        """
        if self._session.trial.folder is not None:
            raise RuntimeError("hold() is for the test mode: with real_ledger records run by themselves")
        self._session.trial.holding = True

    def drain(self) -> Awaitable[None]:
        """Run all that is due, and what becomes due by that, until nothing is; then prune.

        In an `async def` test await it; in a `def` test it is done when it returns. With `real_ledger` it
        waits until the executor has done so, and raises TimeoutError if that takes more than 30 s.
        Raises the first error of a task that failed, as a request does.
        """
        return self._session.drain()

    def __repr__(self) -> str:
        return f"<Recorder: {'; '.join(map(str, self.calls)) or 'no calls'}>"
