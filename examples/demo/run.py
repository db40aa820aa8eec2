"""One run of the demo, from the first start of the app to the verdict."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic

from rich.console import Console

from examples.demo import content, evidence
from examples.demo.load import Answer, Load
from examples.demo.mailbox import Mailbox
from examples.demo.patience import wait_until
from examples.demo.server import Server
from examples.demo.settings import Settings
from examples.demo.table import table
from examples.demo.verdict import Verdict, judge


class Run:
    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.mailbox = Mailbox(folder / "mailbox")
        self.console = Console(highlight=False)
        self.broken = False
        self._began = monotonic()

    async def play(self) -> int:
        """Return the exit code. The app and the mailbox are stopped however this ends."""
        self.say(f"making {self.settings.requests} requests: sign-ups, texts and pictures")
        requests = list(content.requests(self.settings.requests))
        await self.mailbox.start()
        self.server = Server(self.folder, smtp_port=self.mailbox.port)
        try:
            verdict = await self._try_to_break_it(requests)
            if self.settings.serve:
                await self._stay_up(verdict)
        finally:
            await self.server.stop()
            self.mailbox.stop()
        return 1 if self.broken else 0

    async def _try_to_break_it(self, requests: Sequence[content.Request]) -> Verdict:
        began = monotonic()
        await self.server.start()
        self.say(f"the app answers at {self.server.url}; {self.settings.clients} clients begin")
        answers = await self._load_and_kills(requests)
        self.say(f"{len(answers)} requests sent; waiting until the ledger has no live record")
        await self._wait_for_the_last_record()
        verdict = judge(answers, await evidence.Evidence.collect(self.server, self.mailbox))
        self.broken = not verdict.holds
        self.console.print()
        self.console.print(table(verdict, kills=self.settings.kills, seconds=monotonic() - began))
        return verdict

    async def _load_and_kills(self, requests: Sequence[content.Request]) -> Sequence[Answer]:
        load = Load(self.server, requests, clients=self.settings.clients)
        moments = load.moments(self.settings.kills)
        async with asyncio.TaskGroup() as group:
            sent = group.create_task(load.send())
            group.create_task(self._kill_at(moments, load))
        return sent.result()

    async def _kill_at(self, moments: Sequence[asyncio.Event], load: Load) -> None:
        for number, moment in enumerate(moments, start=1):
            await moment.wait()
            await asyncio.sleep(random.uniform(0, 0.02))  # anywhere within a request, not always at its start
            await self.server.kill()
            self.say(f"kill -9, number {number}, after {len(load.answers)} requests; starting the app again")
            await self.server.start()
            self.say("the app answers again")

    async def _wait_for_the_last_record(self) -> None:
        async def finished() -> bool:
            return await evidence.live(self.server.ledger) == 0

        try:
            await wait_until(finished, timeout=self.settings.deadline, what="the last record", every=0.2)
        except TimeoutError as error:
            self.say(f"{error}: what is still live counts as lost")

    async def _stay_up(self, verdict: Verdict) -> None:
        sample = next(
            (answer.headers["location"] for answer in verdict.answers if "location" in answer.headers), ""
        )
        self.console.print()
        self.console.print(f"The app:         {self.server.url}/docs", soft_wrap=True)
        self.console.print(f"A file's record: {self.server.url}{sample}", soft_wrap=True)
        self.console.print(f"The mailbox:     {self.mailbox.list_over_http()}", soft_wrap=True)
        self.console.print(f"All its files:   {self.folder}", soft_wrap=True)
        self.console.print("Ctrl+C stops all this and removes the folder.")
        with suppress(asyncio.CancelledError):  # Ctrl+C is how this is meant to end
            await asyncio.Event().wait()

    def say(self, text: str) -> None:
        self.console.print(f"{monotonic() - self._began:5.1f} s  {text}", soft_wrap=True)
