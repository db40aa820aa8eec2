"""Every error that Segundo raises; each message says what to do.

SegundoError
├── ConfigurationError        a setting, or the FastAPI in use, does not fit
├── DeclarationError          a function cannot be a task (also a TypeError)
├── ArgumentError             a call's argument cannot be recorded (also a TypeError)
├── ResultError               a value cannot be encoded as its annotation says (also a TypeError)
├── PayloadError              a stored payload cannot be decoded (also a ValueError)
├── UnknownTask               a record names a function that this app does not offer (also a LookupError)
├── UnknownRecord             no record has this id (also a LookupError)
├── NoRequest                 a task's dependency needs what only a request has (also a KeyError)
├── NotAllowed                the record's state does not allow this change
├── TaskFailed                a call whose result was awaited ended `failed`
│   └── TaskCancelled         … or `cancelled`
└── LedgerError
    ├── LedgerUnavailable     the ledger could not do it in time; nothing was changed
    ├── LedgerUnusable        the file is no ledger of ours, too new, read-only, on a network disk
    │   └── LedgerMoved       its records have moved to another ledger
    └── LedgerForked          the ledger was opened before a fork and used after it

RetryLater is not an error: a task raises it to be run again later.
"""

from typing import Any

from segundo.failure import Failure


class SegundoError(Exception):
    """The root of every error that Segundo raises."""


class ConfigurationError(SegundoError):
    """A setting, or the installed FastAPI, does not fit; the message names it and the way out."""


class DeclarationError(SegundoError, TypeError):
    """A function cannot be a task: a method, a generator."""


class ArgumentError(SegundoError, TypeError):
    """A call's argument cannot be recorded: it is raised on the caller's line and names the parameter."""

    def __init__(self, function_name: str, parameter: str, why: str) -> None:
        self.function_name = function_name
        self.parameter = parameter
        self.why = why
        super().__init__(f"{function_name}(): argument {parameter!r} {why}")


class ResultError(SegundoError, TypeError):
    """A value cannot be encoded as its annotation says, or is too large."""


class PayloadError(SegundoError, ValueError):
    """A stored payload does not fit the function it is for."""


class UnknownTask(SegundoError, LookupError):
    """A record names a function that this app does not offer."""


class UnknownRecord(SegundoError, LookupError):
    """No record has this id."""


class NoRequest(SegundoError, KeyError):
    """A task's dependency needs what only a request has: a header, a cookie, a body."""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError would quote it


class NotAllowed(SegundoError):
    """The record's state does not allow this change, or another change came first."""


class TaskFailed(SegundoError):
    """A call whose result was awaited ended without one.

    `id` and `task` name its record, `reason` is a word for why. `error` is the exception of its last attempt
    as it was recorded: `type`, `message`, `notes`, `traceback` (text) and `causes`; None if there was none.
    """

    how = "failed"

    def __init__(self, id: str, task: str, reason: str | None, error: Failure | None = None) -> None:
        self.id = id
        self.task = task
        self.reason = reason
        self.error = error
        super().__init__(f"{task} {id} {self.how}: {reason if error is None else error}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.id, self.task, self.reason, self.error)


class TaskCancelled(TaskFailed):
    """A call whose result was awaited was cancelled: by hand, or since one that it waited for failed."""

    how = "was cancelled"


class LedgerError(SegundoError):
    """The root of what can go wrong with the durable store."""


class LedgerUnavailable(LedgerError):
    """The ledger could not do it in time, or failed; nothing of the request was changed."""


class LedgerUnusable(LedgerError):
    """The ledger's file cannot be used at all; the message says why and what to do."""


class LedgerMoved(LedgerUnusable):
    """The ledger's records have moved to another, or are about to; the message says which."""


class LedgerForked(LedgerError):
    """The ledger was opened before a fork; open it after the fork (in the app's lifespan)."""


class RetryLater(Exception):
    """Raised by a task: end this attempt and run the record again after `seconds`.

    It spends one of the task's attempts; with none left the record ends `failed`.
    """

    def __init__(self, seconds: float) -> None:
        if not seconds >= 0:  # nan is not, and no ledger can store it
            raise ValueError(
                f"RetryLater(seconds): seconds cannot be negative, or no number; not {seconds!r}"
            )
        self.seconds = seconds
        super().__init__(f"run again in {seconds:g} s")
