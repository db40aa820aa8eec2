"""The `BackgroundTasks` of a task: what it, or a dependency of it, adds are child calls of the attempt."""

from typing import Any

from segundo.background import BackgroundTasks
from segundo.context import current
from segundo.handle import Handle


class ChildTasks(BackgroundTasks):
    """Adds calls as `current().add_task` does. The attempt's end decides: the seam's exits do nothing."""

    def __init__(self, _: object = None) -> None:
        super().__init__()

    def _add(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Handle[Any]:
        return current().add_task(function, *args, **kwargs)

    async def __call__(self) -> None:
        """Nothing runs here: children are recorded, or dropped."""

    async def on_function_exit(self, kind: Any, error: BaseException | None, trace: Any) -> None: ...
    async def on_early_answer(self) -> None: ...
    async def on_response_sent(self, kind: Any, error: BaseException | None, trace: Any) -> None: ...
    async def on_request_exit(self, kind: Any, error: BaseException | None, trace: Any) -> None: ...
