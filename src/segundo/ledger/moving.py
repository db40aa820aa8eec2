"""A move: carries live records from one ledger to another, so that each runs once, whenever it is broken off.

The order of its steps, and why nothing is lost and nothing runs twice:

0. *Check* that the new ledger can hold every record of the old one, though others have written into that.
1. *Enter and shut*, in the old ledger. The mover is alive there, so a second one finds it. What dead
   processes held is taken over first. In one transaction with the proof that nobody else is there, the ledger
   gets its mark: from now on no app can enter. Nothing runs there, and nothing changes.
2. *Copy*, batch by batch, into the new one. Each record is `waiting` there, in the hands of a holder that is
   no process: nobody can claim it, and nobody takes it over. It goes by the id, so a second time changes
   nothing.
3. *Whole*, in the new one: from here it takes in no more, from whomever.
4. *Decide*, one commit in the old one: the mark says that the records are there. Before it they are here
   alone, for none there can run; after it they are there alone, for none here can.
5. *Let go*, batch by batch: the holder's records are queued, or wait for each other.
6. *Discard*, batch by batch, what has moved, and leave.

Broken off before 4, the same command copies again what is missing; after it, it goes on with 5.
(test_a_move_that_is_killed_at_any_step_is_finished_by_the_same_command)
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from segundo.errors import NotAllowed
from segundo.ledger.mark import HOLDER, Mark
from segundo.ledger.moved import (
    Arrived,
    Batch,
    Count,
    Decide,
    Discard,
    LetGo,
    Read,
    ReadMark,
    Shut,
    TakeIn,
    Welcome,
    Whole,
)
from segundo.ledger.written import WrittenLedger

BATCH = 1000  # records of one transaction, so that requests in the new one need not wait long
AGAIN = 1.0  # seconds until it looks again whether those who are dead are known to be


def nothing(_: str, __: int = 0) -> None:
    """Who does not want to know."""


class Move:
    """From `old` to `new`, both open. `ended`: ended records too. `batch`: records of one transaction.

    `stays`: asked when somebody beside the mover, whose name it gets, is in the old one; raises if one of
    them is alive, returns if they are only to be taken over. `reached`: hears of each step, by name, and how
    many records it was about.
    """

    def __init__(
        self,
        old: WrittenLedger,
        new: WrittenLedger,
        *,
        ended: bool = False,
        batch: int = BATCH,
        stays: Callable[[str], None] = lambda _: None,
        reached: Callable[[str, int], None] = nothing,
    ) -> None:
        self._old = old
        self._new = new
        self._ended = ended
        self._batch = batch
        self._stays = stays
        self._reached = reached
        self._me = f"move:{secrets.token_hex(8)}"

    async def run(self) -> int:
        """Do all that is left to do; how many live records it let go. Raises NotAllowed, LedgerError."""
        await self._old.join(self._me, moving=True)
        try:
            return await self._move()
        finally:
            await self._old.leave(self._me)

    async def _move(self) -> int:
        mark = await self._shut()
        if not mark.done:
            mark = await self._copy(mark)
        gone = await self._let_go(mark)
        await self._discard(mark)
        return gone

    # 0

    async def _check(self) -> None:
        """Raises NotAllowed for a record that the new ledger cannot hold, before anything is changed."""
        flaw = self._new.flaw
        async for batch in self._batches(ended=self._ended):
            for record in batch.records:
                wrong = flaw(record._replace(published_until=None)._asdict())
                if wrong is not None:
                    raise _no_place(f"{record.printable_task} {ascii(record.id)[:80]}", wrong)
            for link in batch.links:
                wrong = flaw(link._asdict())
                if wrong is not None:
                    raise _no_place(f"what {ascii(link.after)[:80]} waits for", wrong)

    # 1

    async def _shut(self) -> Mark:
        mark = await self._old.do(ReadMark())
        if mark is None:
            mark = Mark(self._new.name, f"{HOLDER}{secrets.token_hex(8)}", self._ended)
        elif mark.to != self._new.name:
            raise mark.error()
        elif not mark.done:
            mark = replace(mark, ended=self._ended)
        if not mark.done:
            await self._check()
        while not mark.done:
            await self._old.rescue()
            if await self._old.do(Shut(self._me, mark)):
                break
            self._stays(self._me)
            self._reached("waits", 0)
            await asyncio.sleep(AGAIN)
        self._reached("shut", await self._old.do(Count(ended=mark.ended)))
        return mark

    # 2, 3 and 4

    async def _copy(self, mark: Mark) -> Mark:
        await self._new.do(Welcome(mark.holder))
        self._reached("welcomed", 0)
        copied = await self._copy_all(mark)
        await self._new.do(Whole(mark.holder))
        self._reached("whole", copied)
        if not await self._old.do(Decide(mark, copied)):
            raise NotAllowed("records of the old ledger have changed meanwhile: run the same command again")
        self._reached("decided", copied)
        return replace(mark, done=True)

    async def _copy_all(self, mark: Mark) -> int:
        live = 0
        async for batch in self._batches(ended=mark.ended):
            await self._new.do(TakeIn(batch, mark.holder))
            live += sum(not record.state.terminal for record in batch.records)
            self._reached("copied", len(batch.records))
        return live

    async def _batches(self, *, ended: bool) -> AsyncIterator[Batch]:
        after = ""
        while (batch := await self._old.do(Read(after, self._batch, ended=ended))).records:
            yield batch
            after = batch.records[-1].id

    # 5 and 6

    async def _let_go(self, mark: Mark) -> int:
        gone = 0
        while held := await self._new.do(LetGo(mark.holder, self._batch)):
            gone += held
            self._reached("let go", held)
        await self._new.do(Arrived(mark.holder))
        self._reached("arrived", gone)
        return gone

    async def _discard(self, mark: Mark) -> None:
        after = ""
        while ids := await self._old.do(Discard(after, self._batch, ended=mark.ended)):
            after = ids[-1]
            self._reached("discarded", len(ids))


def _no_place(what: str, wrong: str) -> NotAllowed:
    return NotAllowed(
        f"{what} cannot be stored there: {wrong}. No Segundo wrote that. Nothing has moved: cancel it with "
        "`segundo cancel`, or delete its row, and run the same command again"
    )
