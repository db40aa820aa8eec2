"""A busy ledger on a disk that keeps a diary, into which each promise is noted once it is made.

Run as a module on the disk of `disk.py`: what it does, the durability, how likely a sync fails, and a seed.
It leaves the ledger as it was at first ("first.db"), and the "diary".
"""

import asyncio
import errno
import json
import sys
from collections.abc import Awaitable
from pathlib import Path
from random import Random

from segundo.errors import LedgerUnavailable
from segundo.ledger import Settlement
from segundo.ledger.sqlite import SQLiteLedger
from segundo.record import State
from tests.failures.disk import LEDGER, Disk, Op
from tests.failures.on_a_failing_disk import connect, make_empty
from tests.failures.story import ME, call

ROUNDS = 30


class Busy:
    """Requests and an executor; what the ledger has said yes to is noted, whatever fails is not."""

    def __init__(self, ledger: SQLiteLedger, disk: Disk, chance: Random, unreliable: float) -> None:
        self._ledger, self._disk, self._chance, self._unreliable = ledger, disk, chance, unreliable
        self._refused: list[str] = []

    async def refuse(self) -> None:
        """One request is refused because its sync fails, and then nothing else happens."""
        await self._request()
        self._disk.arm(Op.SYNC, 1, number=0, error=errno.EIO)
        await self._request()
        self._disk.heal()
        assert await self._done(self._ledger.rescue()) is not False
        self._promise(**dict.fromkeys(self._refused, "forgotten"))

    async def work(self) -> None:
        for _ in range(ROUNDS):
            if self._chance.random() < self._unreliable:
                first, number = self._chance.randint(1, 4), self._chance.randint(1, 6)
                self._disk.arm(Op.SYNC, first, number=number, error=errno.EIO)
            await asyncio.gather(*(self._request() for _ in range(self._chance.randint(1, 5))))
            await self._run(self._chance.randint(1, 5))
            self._disk.heal()
            if self._refused and await self._done(self._ledger.rescue()) is not False:
                self._promise(**dict.fromkeys(self._refused, "forgotten"))
                self._refused.clear()

    async def _request(self) -> None:
        calls = [call(), call()]
        recorded = await self._done(self._ledger.record(calls, owner=ME))
        if recorded is False:
            self._refused += [each.id for each in calls]
        ids = [record.id for record in recorded or ()]
        self._promise(**dict.fromkeys(ids, "recorded"))
        if ids and await self._done(self._ledger.release(ME, ids)) is not False:
            self._promise(**dict.fromkeys(ids, "released"))

    async def _run(self, limit: int) -> None:
        claimed = await self._done(self._ledger.claim(ME, limit=limit)) or ()
        self._promise(**{record.id: "claimed" for record in claimed})
        ends = [Settlement(id=each.id, claim=each.claim, state=State.SUCCEEDED) for each in claimed]
        if any(await self._done(self._ledger.settle(ends)) or ()):
            self._promise(**{end.id: "succeeded" for end in ends})

    @staticmethod
    async def _done(verb: Awaitable[object]) -> object:
        """What it answers; False if it is refused."""
        try:
            return await verb
        except LedgerUnavailable:
            return False

    def _promise(self, **promises: str) -> None:
        self._disk.note(json.dumps(promises))


async def main(story: str, durability: str, unreliable: str, seed: str) -> None:
    disk, path = Disk(), Path.cwd() / LEDGER
    disk.keep_diary(Path.cwd() / "diary")
    ledger = SQLiteLedger(path, durability=durability, connect=connect)  # type: ignore[arg-type]
    await ledger.open()
    busy = Busy(ledger, disk, Random(seed), float(unreliable))
    await {"work": busy.work, "refuse": busy.refuse}[story]()
    await ledger.close()


if __name__ == "__main__":
    first = make_empty(Path.cwd() / "first.db")
    (Path.cwd() / LEDGER).write_bytes(first)
    asyncio.run(main(*sys.argv[1:]))
