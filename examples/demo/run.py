"""One run of the demo, from the first start of the app to the verdict."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from time import monotonic

from rich.console import Console

from examples.demo import content, evidence
from examples.demo.engine import Target
from examples.demo.load import Answer, Load
from examples.demo.patience import wait_until
from examples.demo.settings import Settings
from examples.demo.stage import Stage
from examples.demo.table import table
from examples.demo.verdict import Verdict, judge


class Run:
    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.console = Console(highlight=False)
        self.stage = Stage(settings.engine, folder, self.say)
        self.broken = False
        self._began = monotonic()

    async def play(self) -> int:
        """Return the exit code. All that was started is stopped however this ends."""
        self.say(f"the sign-up app on {self.settings.engine.says}")
        self.say(f"making {self.settings.requests} requests: sign-ups, texts and pictures")
        requests = list(content.requests(self.settings.requests))
        try:
            verdict = await self._try_to_break_it(requests)
            if self.settings.serve:
                await self._stay_up(verdict)
        finally:
            await self.stage.stop()
        return 1 if self.broken else 0

    async def _try_to_break_it(self, requests: Sequence[content.Request]) -> Verdict:
        began = monotonic()
        await self.stage.start()
        self.say(f"the app answers at {self.stage.server.url}; {self.settings.clients} clients begin")
        answers = await self._load_and_kills(requests)
        self.say(f"{len(answers)} requests sent; waiting until the ledger has no live record")
        await self._wait_for_the_last_record()
        verdict = judge(answers, await evidence.Evidence.collect(self.stage))
        self.broken = not verdict.holds
        self.console.print()
        self.console.print(table(verdict, kills=self.stage.kills, seconds=monotonic() - began))
        return verdict

    async def _load_and_kills(self, requests: Sequence[content.Request]) -> Sequence[Answer]:
        engine = self.settings.engine
        load = Load(self.stage.server, requests, clients=self.settings.clients, pause=engine.pause)
        moments = load.moments(self.settings.kills)
        try:
            async with asyncio.TaskGroup() as group:
                sent = group.create_task(load.send())
                for moment, target in zip(moments, cycle(engine.targets), strict=False):
                    group.create_task(self._kill_at(moment, target, load))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return sent.result()

    async def _kill_at(self, moment: asyncio.Event, target: Target, load: Load) -> None:
        await moment.wait()
        await asyncio.sleep(random.uniform(0, 0.02))  # anywhere within a request, not always at its start
        await self.stage.kill(target, lambda: f"after {len(load.answers)} requests")

    async def _wait_for_the_last_record(self) -> None:
        async def finished() -> bool:
            return await evidence.live(self.stage.ledger) == 0

        if self.settings.engine.ledger:
            self.say("(what a killed process was running is taken over when its lease ends, within 30 s)")
        try:
            await wait_until(finished, timeout=self.settings.deadline, what="the last record", every=0.2)
        except TimeoutError as error:
            self.say(f"{error}: what is still live counts as lost")

    async def _stay_up(self, verdict: Verdict) -> None:
        stage, folder = self.stage, self.folder
        sample = next(
            (answer.headers["location"] for answer in verdict.answers if "location" in answer.headers), ""
        )
        addresses = {
            "The app:": f"{stage.server.url}/docs",
            "A file's record:": f"{stage.server.url}{sample}",
            "The mailbox:": stage.mailbox.list_over_http(),
            "The ledger:": stage.ledger,
            "The broker:": stage.servers.settings().get("SEGUNDO_BROKER", ""),
            "All its files:": str(folder),
        }
        self.console.print()
        for what, where in addresses.items():
            if where:
                self.console.print(f"{what:<17}{where}", soft_wrap=True)
        self.console.print("Ctrl+C stops all this and removes the folder.")
        with suppress(asyncio.CancelledError):  # Ctrl+C is how this is meant to end
            await asyncio.Event().wait()

    def say(self, text: str) -> None:
        self.console.print(f"{monotonic() - self._began:5.1f} s  {text}", soft_wrap=True)
