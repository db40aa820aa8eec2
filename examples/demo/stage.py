"""All that runs: a mailbox, the app, and on the engine's servers Celery workers; and how each is killed."""

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

from examples.demo.engine import Engine, Target
from examples.demo.mailbox import Mailbox
from examples.demo.server import Server
from examples.demo.servers import Servers
from examples.demo.worker import Worker

TITLES = {"postgres": "PostgreSQL", "redis": "Redis", "rabbitmq": "RabbitMQ"}
OURS = ("SEGUNDO_", "SIGNUP_", "SMTP_", "CELERY_", "PG")


class Stage:
    """`say` is told what is killed and when it is back. `kills` counts them."""

    def __init__(self, engine: Engine, folder: Path, say: Callable[[str], None]) -> None:
        self.mailbox = Mailbox(folder / "mailbox")
        self.servers = Servers(engine, folder)
        self.kills: Counter[Target] = Counter()
        self._engine = engine
        self._folder = folder
        self._say = say
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._hit = 0  # how many workers were

    @property
    def ledger(self) -> str:
        return self.servers.settings().get("SEGUNDO_LEDGER", str(self._folder / "segundo.db"))

    async def start(self) -> None:
        self._folder.chmod(0o711)  # PostgreSQL, which is not run as root, has its folder in it
        await self.mailbox.start()
        environment = self._environment()
        self.server = Server(self._folder, environment)
        self.workers = [Worker(n + 1, self._folder, environment) for n in range(self._engine.workers)]
        if self._engine.services:
            names = " and ".join(TITLES[service.name] for service in self._engine.services)
            self._say(f"starting {names}, for this run alone")
            await self.servers.start()
        await self.server.start()  # first, for it makes the ledger's tables
        await asyncio.gather(*(worker.start() for worker in self.workers))

    async def stop(self) -> None:
        """In the order in which they need each other; harmless on what has not started."""
        if hasattr(self, "server"):
            await asyncio.gather(*(program.stop() for program in (self.server, *self.workers)))
            await self.servers.stop()
            self.mailbox.stop()

    async def kill(self, target: Target, when: Callable[[], str]) -> None:
        """Kill it and start it again. What is not back yet is not killed before it is."""
        ways = {
            Target.APP: self._kill_the_app,
            Target.WORKER: self._kill_a_worker,
            Target.BROKER: self._kill_the_broker,
            Target.LEDGER: self._kill_the_ledger,
        }
        await ways[target](when)

    async def _kill_the_app(self, when: Callable[[], str]) -> None:
        async with self._turns["app"]:
            await self.server.kill()
            self._tell(Target.APP, f"kill -9 of the app {when()}; starting it again")
            await self.server.start()
            self._say("the app answers again")

    async def _kill_a_worker(self, when: Callable[[], str]) -> None:
        worker = self.workers[self._hit % len(self.workers)]
        self._hit += 1
        async with self._turns[worker.name]:
            await worker.kill()
            self._tell(
                Target.WORKER, f"kill -9 of {worker.name}, with its children, {when()}; starting it again"
            )
            await worker.start()
            self._say(f"{worker.name} is back")

    async def _kill_the_broker(self, when: Callable[[], str]) -> None:
        async with self._turns["broker"]:
            messages = await self.servers.crash_the_broker()
            name = TITLES[self._engine.name]
            self._tell(Target.BROKER, f"kill -9 of {name} {when()}, with {messages} messages in it")
            await self.servers.restart_the_broker()
            self._say(f"{name} is back" + (", and remembers nothing" if name == "Redis" else ""))

    async def _kill_the_ledger(self, when: Callable[[], str]) -> None:
        async with self._turns["ledger"]:
            await self.servers.crash_the_ledger()
            self._tell(Target.LEDGER, f"PostgreSQL crashed (SIGQUIT) {when()}; starting it again")
            await self.servers.restart_the_ledger()
            self._say("PostgreSQL is back")

    def _tell(self, target: Target, what: str) -> None:
        self.kills[target] += 1
        self._say(f"kill {self.kills.total()}: {what}")

    def _environment(self) -> Mapping[str, str]:
        """The caller's own settings of Segundo or of the app would lead the run to the caller's files."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
        temporary = self._folder / "tmp"  # who is killed leaves its own behind
        temporary.mkdir()
        smtp = {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(self.mailbox.port), "TMPDIR": str(temporary)}
        return {**inherited, **smtp, **self.servers.settings()}
