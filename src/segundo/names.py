"""Which functions the ledger may name, and how a name becomes a function again.

A declared task is known by its name; a plain function by "module:function", if it is of the app's own code.
Nothing else is ever resolved, so a forged row can only call what the app itself offers.
"""

import importlib
import importlib.util
import inspect
import logging
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from segundo.errors import ConfigurationError, UnknownTask
from segundo.task import Task, check_body, declared, import_name, plain, registered

logger = logging.getLogger("segundo")

_LIBRARIES = tuple(
    {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)

NO_FUNCTION = "it is not a function of a module"


class Others(Protocol):
    """Tasks of another kind than functions."""

    def of(self, function: object) -> Task | None: ...
    def named(self, name: str) -> Task | None: ...


class Names:
    """The functions that one app offers. `modules`: the top-level names of its own packages and modules.

    `others`: tasks of another kind, which its Celery apps have. `check`: called with each task when it is
    first offered, may raise what speaks against it.
    """

    def __init__(
        self,
        modules: Iterable[str],
        *,
        check: Callable[[Task], None],
        only: bool = False,
        others: Others | None = None,
    ) -> None:
        if isinstance(modules, str) or not isinstance(modules, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]  # a text is one, of characters
            raise ConfigurationError(f"modules=… is a list of names: modules=[{modules!r}]")
        self._check = check
        self._others = others
        self._roots = frozenset(import_name(module).partition(".")[0] for module in modules)
        self._only = only
        self._own: dict[str, bool] = {}
        self._by_function: dict[Callable[..., Any], Task] = {}
        self._by_name: dict[str, Task] = {}

    def offered(self, function: Callable[..., Any]) -> Task | str:
        """The task that this function is, or why it cannot be recorded (then it runs in process).

        Raises DeclarationError for a generator, which would do nothing in either way.
        """
        try:
            known = self._by_function.get(function)
        except TypeError:  # not hashable
            return NO_FUNCTION
        if known is not None:
            return known
        task = declared(function) or self._other(function) or self._examine(function)
        if isinstance(task, Task):
            self._check(task)
            self._by_function[function] = task
        return task

    def resolve(self, name: str) -> Task:
        """The task with this name. Raises UnknownTask: nothing that the app offers is called so."""
        task = self._by_name.get(name)
        if task is None or not _stands(task):
            task = self._by_name[name] = self._find(name)
        return task

    def _find(self, name: str) -> Task:
        task = registered(name) or (None if self._others is None else self._others.named(name))
        if task is not None:
            return task
        module, colon, qualname = name.partition(":")
        function = self._function(module, qualname) if colon and self._is_own(module) else None
        task = registered(name)  # the import may just have declared it
        if task is None and function is not None:
            offered = self.offered(function)
            task = offered if isinstance(offered, Task) and offered.name == name else None
        if task is None:
            raise UnknownTask(
                f"{name!r} is no task that this app offers: import the module that declares it, or keep its "
                "old name with @task(name=…)"
            )
        return task

    def _other(self, function: Callable[..., Any]) -> Task | None:
        return None if self._others is None else self._others.of(function)

    def _examine(self, function: Callable[..., Any]) -> Task | str:
        check_body(function)
        if not inspect.isfunction(function):
            return NO_FUNCTION
        if "." in function.__qualname__ or function.__name__ == "<lambda>":
            return "it is a lambda, a method or a nested function, which a later process cannot find"
        module = import_name(function.__module__)
        if not self._is_own(module):
            return f"its module {module} is not the app's own code (modules=[…] adds to it)"
        if self._function(module, function.__qualname__) is not function:
            return f"{module}.{function.__qualname__} is another object than this function"
        return plain(function, f"{module}:{function.__qualname__}")

    def _function(self, module: str, qualname: str) -> Callable[..., Any] | None:
        found = getattr(_imported(module), qualname, None)
        of_there = inspect.isfunction(found) and import_name(found.__module__) == module
        return found if of_there else None

    def _is_own(self, module: str) -> bool:
        own = self._own.get(module)
        if own is None:
            own = self._own[module] = self._look(module)
        return own

    def _look(self, module: str) -> bool:
        root = module.partition(".")[0]
        if root in self._roots:
            return True
        return (
            not self._only
            and root != "segundo"
            and root not in sys.stdlib_module_names
            and _outside_libraries(root)
        )


def _stands(task: Task) -> bool:
    """Whether the module still has this function by its name: one that was loaded again has another."""
    return task.function.__globals__.get(task.function.__name__) is task.function


def _outside_libraries(root: str) -> bool:
    """Whether the top-level module or package lies outside the standard library and site-packages."""
    loaded = _loaded(root)
    try:
        spec = loaded.__spec__ if loaded is not None else importlib.util.find_spec(root)
    except (ImportError, ValueError):
        return False
    origin = getattr(loaded, "__file__", None) or (spec.origin if spec is not None else None)
    if origin is None and spec is not None and spec.submodule_search_locations:
        origin = next(iter(spec.submodule_search_locations))  # a namespace package: where its first part lies
    if origin is None or origin in ("built-in", "frozen"):
        return False
    place = Path(origin).resolve()
    return not any(place.is_relative_to(library) for library in _LIBRARIES)


def _imported(module: str) -> Any:
    loaded = _loaded(module)
    if loaded is not None:
        return loaded
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def _loaded(module: str) -> Any:
    """The module if it is loaded; the program that was started is `__main__`, whatever others call it."""
    if module in sys.modules:
        return sys.modules[module]
    main = sys.modules.get("__main__")
    return main if main is not None and import_name("__main__") == module else None
