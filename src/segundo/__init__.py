"""Background tasks for FastAPI that are not lost: the same call, recorded before the response leaves."""

from segundo.app import Segundo
from segundo.background import BackgroundTask, BackgroundTasks
from segundo.context import TaskContext, current
from segundo.errors import RetryLater, SegundoError, TaskFailed
from segundo.handle import Handle
from segundo.injection import INJECTED
from segundo.record import Record, State
from segundo.retry import Retry
from segundo.task import task

__all__ = [
    "INJECTED",
    "BackgroundTask",
    "BackgroundTasks",
    "Handle",
    "Record",
    "Retry",
    "RetryLater",
    "Segundo",
    "SegundoError",
    "State",
    "TaskContext",
    "TaskFailed",
    "current",
    "task",
]
