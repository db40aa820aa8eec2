"""The servers of an engine: on ports of their own, in folders of their own, ended by their process ids."""

import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path

from kombu import Connection

from examples.demo.engine import Engine
from scripts.ports import free_port
from scripts.services import Service

OUTAGE = 2.0  # seconds that a killed broker stays away


class Servers:
    def __init__(self, engine: Engine, folder: Path) -> None:
        self.ledger = engine.ledger and engine.ledger(folder / "ledger", free_port(engine.ledger.ports))
        self.broker = engine.broker and engine.broker(folder / "broker", free_port(engine.broker.ports))
        self._all: list[Service] = [server for server in (self.ledger, self.broker) if server]
        self._starts: list[asyncio.Future[Service]] = []

    def settings(self) -> Mapping[str, str]:
        """All that the app is told of them, by its environment."""
        servers = {"SEGUNDO_LEDGER": self.ledger, "SEGUNDO_BROKER": self.broker}
        return {name: server.url() for name, server in servers.items() if server}

    async def start(self) -> None:
        await self._start(self._all)

    async def stop(self) -> None:
        """End them and delete what they hold, also if they were only just starting."""
        await asyncio.gather(*self._starts, return_exceptions=True)
        for server in self._all:
            await asyncio.to_thread(server.remove)

    async def crash_the_broker(self) -> int:
        """`kill -9`. Returns how many messages it had."""
        assert self.broker
        messages = await asyncio.to_thread(waiting_in, self.broker.url())
        await asyncio.to_thread(self.broker.stop, signal.SIGKILL)
        return messages

    async def restart_the_broker(self) -> None:
        assert self.broker
        await asyncio.sleep(OUTAGE)
        await self._start([self.broker])

    async def crash_the_ledger(self) -> None:
        """PostgreSQL's own way to crash, all its processes at once and nothing tidied up: SIGQUIT."""
        assert self.ledger
        await asyncio.to_thread(self.ledger.stop, signal.SIGQUIT)

    async def restart_the_ledger(self) -> None:
        assert self.ledger
        await self._start([self.ledger])

    async def _start(self, servers: list[Service]) -> None:
        """Threads go on when the demo is told to end meanwhile: `stop` waits for them."""
        self._starts = [asyncio.ensure_future(asyncio.to_thread(server.start)) for server in servers]
        await asyncio.shield(asyncio.gather(*self._starts))


def waiting_in(broker: str, queue: str = "default") -> int:
    """The messages in a queue. Redis has it as a list for each priority, and none where it is empty."""
    redis = broker.startswith("redis")
    with Connection(
        broker, transport_options={"priority_steps": list(range(10))} if redis else {}
    ) as connection:
        try:
            return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
        except connection.channel_errors:
            return 0
