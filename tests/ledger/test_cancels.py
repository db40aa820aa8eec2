"""Who runs records hears at once that a cancel was asked for, by whichever process, and of nothing else."""

import threading

from segundo.ledger import Beat
from tests.ledger.actors import a_process
from tests.ledger.suite import Stage, settlement
from tests.support import wait_until_async


class Ear:
    """Listens for cancels."""

    def __init__(self, stage: Stage) -> None:
        self.heard = threading.Event()
        stage.ledger.listen(self.heard.set, cancels=True)

    async def hears(self) -> None:
        await wait_until_async(self.heard.is_set)
        self.heard.clear()


async def test_a_cancel_of_what_runs_is_heard_here_and_from_another_process(stage: Stage) -> None:
    ours, theirs = await stage.running(), await stage.running()
    ear = Ear(stage)
    await stage.ledger.cancel(ours.id)
    await ear.hears()
    with a_process() as other:
        other.meet(stage.store, "other")
        other.do("cancel", theirs.id)
        await ear.hears()
    beat = await stage.ledger.beat(stage.me, running=[ours.id, theirs.id])
    assert (beat.lost, set(beat.cancel)) == ((), {ours.id, theirs.id})


async def test_nothing_else_that_others_do_sounds_like_a_cancel(stage: Stage) -> None:
    there, work = await stage.another("other"), threading.Event()
    stage.ledger.listen(work.set)
    ear = Ear(stage)
    mine = await stage.running()
    one = await stage.claim(await stage.queued(), "other")
    await there.progress(one.id, one.claim, '"half"')
    await there.settle([settlement(one)])
    await there.cancel((await stage.queued()).id)  # it does not run
    await wait_until_async(work.is_set)  # what they did has been noticed
    assert not ear.heard.is_set()
    await there.cancel(mine.id)
    await ear.hears()
    assert await stage.ledger.beat(stage.me, running=[mine.id]) == Beat(lost=(), cancel=(mine.id,))


async def test_who_listens_no_more_hears_nothing(stage: Stage) -> None:
    record, ear = await stage.running(), Ear(stage)
    stage.ledger.unlisten(ear.heard.set)
    await stage.ledger.cancel(record.id)
    await stage.settled()
    assert not ear.heard.is_set()
