"""Clients that send requests to the app, all at once, and keep what they were answered."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from examples.demo.content import Request, SignUp
from examples.demo.server import Server


@dataclass(frozen=True)
class Answer:
    """What became of one request. No status means no response: nothing was promised."""

    request: Request
    status: int | None
    body: dict[str, Any] = field(default_factory=dict[str, Any])
    headers: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def promised(self) -> bool:
        return self.status == 202

    @property
    def refused(self) -> bool:
        return self.status is not None and not self.promised


class Load:
    """`moments` are the events of the requests at which somebody wants to be told that the load got there.

    `pause`: seconds between two requests of a client, on average.
    """

    def __init__(
        self, server: Server, requests: Sequence[Request], *, clients: int, pause: float = 0.0
    ) -> None:
        self.answers: list[Answer] = []
        self._server = server
        self._clients = clients
        self._pause = pause
        self._size = len(requests)
        self._left: Iterator[tuple[int, Request]] = iter(enumerate(requests))
        self._moments: dict[int, asyncio.Event] = {}

    def moments(self, count: int) -> list[asyncio.Event]:
        """Random moments within the load, one in each of `count` equal stretches and none near its edges."""
        at = [int((number + random.uniform(0.2, 0.8)) * self._size / count) for number in range(count)]
        self._moments = {position: asyncio.Event() for position in at}
        return list(self._moments.values())

    async def send(self) -> Sequence[Answer]:
        """Send each request once. None begins while the app is down; a broken off one is not repeated."""
        async with asyncio.TaskGroup() as clients:
            for _ in range(self._clients):
                clients.create_task(self._client())
        return self.answers

    async def _client(self) -> None:
        async with httpx.AsyncClient(base_url=self._server.url, timeout=30, trust_env=False) as client:
            for position, request in self._left:
                await asyncio.sleep(random.uniform(0, 2 * self._pause))
                await self._server.up.wait()
                if position in self._moments:
                    self._moments[position].set()
                self.answers.append(await self._send_one(client, request))

    async def _send_one(self, client: httpx.AsyncClient, request: Request) -> Answer:
        try:
            response = await post(client, request)
        except httpx.TransportError:
            return Answer(request, status=None)
        promised = response.status_code == 202
        return Answer(
            request, response.status_code, response.json() if promised else {}, dict(response.headers)
        )


async def post(client: httpx.AsyncClient, request: Request) -> httpx.Response:
    if isinstance(request, SignUp):
        person = {"name": request.name, "email": request.email}
        return await client.post("/signup", json=person, headers={"X-Request-ID": request.id})
    return await client.post("/files", files={"upload": (request.filename, request.content)})
