"""The `Request` of a task: the app and its state, and an error for all that only a client can send."""

from collections.abc import AsyncGenerator
from typing import Any, NoReturn

from starlette.datastructures import URL, Headers, QueryParams
from starlette.requests import Request

from segundo.errors import NoRequest


class TaskRequest(Request):
    """What is given to a task's dependency that asks for a `Request`: nothing was sent with it.

    Who only looks whether something is there, as by `headers.get(…)`, finds that it is not. NoRequest for
    who needs it.
    """

    @property
    def headers(self) -> Headers:
        return _Headers(raw=[])

    @property
    def query_params(self) -> QueryParams:
        return _QueryParams()

    @property
    def path_params(self) -> dict[str, Any]:
        return _Unsent("path_params")

    @property
    def cookies(self) -> dict[str, str]:
        return _Unsent("cookies")

    @property
    def session(self) -> dict[str, Any]:
        _refuse("request.session")

    @property
    def auth(self) -> Any:
        _refuse("request.auth")

    @property
    def user(self) -> Any:
        _refuse("request.user")

    def stream(self) -> AsyncGenerator[bytes, None]:
        """The body, and its JSON, are read by this too."""
        _refuse("the body of the request")

    def form(self, **_: Any) -> Any:
        _refuse("the form of the request")

    def url_for(self, name: str, /, **_: Any) -> URL:
        _refuse(f"the address of the server, for request.url_for({name!r})")


class _Headers(Headers):
    def __getitem__(self, key: str) -> str:
        _refuse(f"request.headers[{key!r}]")


class _QueryParams(QueryParams):
    def __getitem__(self, key: Any) -> str:
        _refuse(f"request.query_params[{key!r}]")


class _Unsent(dict[str, Any]):
    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def __missing__(self, key: object) -> NoReturn:
        _refuse(f"request.{self._name}[{key!r}]")


def _refuse(what: str) -> NoReturn:
    raise NoRequest(
        f"{what}: there is no request when a task runs; read it in the endpoint, and pass the value to "
        "add_task"
    )
