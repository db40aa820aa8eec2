"""What a running task can ask of the attempt it is: `current()`, from anywhere below the task."""

import logging
from contextvars import ContextVar

logger = logging.getLogger("segundo.task")


class TaskContext:
    """The attempt that runs: its record's `id`, its `attempt` (1 for the first), and whether to stop."""

    __slots__ = ("attempt", "cancelled", "claim", "id", "task")

    cancelled: bool
    """True once this attempt should end: cancelled, past its timeout, or the process is stopping.

    A `def` task that runs long looks here now and then and returns; an `async def` is cancelled at its next
    await.
    """

    def __init__(self, *, id: str, task: str, attempt: int, claim: int) -> None:
        self.id = id
        self.task = task
        self.attempt = attempt
        self.claim = claim
        self.cancelled = False

    def log(self, message: str, *args: object) -> None:
        """Log to `segundo.task` at INFO, with the record's id and attempt in front."""
        text = message % args if args else message
        logger.info("%s %s (attempt %d): %s", self.task, self.id, self.attempt, text)


_current: ContextVar[TaskContext] = ContextVar("segundo.current")


def current() -> TaskContext:
    """The context of the task that runs here. RuntimeError outside a recorded task."""
    try:
        return _current.get()
    except LookupError:
        raise RuntimeError("segundo.current() is known only inside a recorded task") from None


def enter(context: TaskContext) -> None:
    """Make `context` the current one for the rest of this asyncio task or thread."""
    _current.set(context)
