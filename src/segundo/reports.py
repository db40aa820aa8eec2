"""What running attempts say of their progress, on its way to the ledger: seldom, and the last always."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context

from segundo.context import Speaker
from segundo.errors import LedgerError
from segundo.progress import Progress

logger = logging.getLogger("segundo")

EVERY = 0.25  # seconds from one progress of an attempt that is stored to the next

Store = Callable[[str, int, str], Awaitable[bool]]  # the ledger's `progress`


class Report:
    """What one attempt has said last, what of it is stored, and who stores it."""

    __slots__ = ("heard", "news", "said", "speaker", "stored", "storing")

    def __init__(self, speaker: Speaker, said: Progress) -> None:
        self.speaker = speaker
        self.said = said
        self.stored: Progress | None = None
        self.heard = True  # the loop has not been told that there is news, or has looked since
        self.news = asyncio.Event()
        self.storing: asyncio.Task[None] | None = None


class Reports:
    """Those of all attempts of a runner that have said something. An attempt that says nothing has none."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reports: dict[tuple[str, int], Report] = {}  # by record and claim

    def say(self, speaker: Speaker, progress: Progress) -> None:
        """From any thread, as often as it likes: the loop is woken once for each that is stored."""
        key = speaker.id, speaker.claim
        report = self._reports.get(key)
        if report is None:
            report = self._reports.setdefault(key, Report(speaker, progress))
        report.said = progress  # first this, and then it is looked whether the loop knows: so none is missed
        if report.heard:
            report.heard = False
            with suppress(RuntimeError):  # the loop is closed: nobody stores anything any more
                speaker.loop.call_soon_threadsafe(self._tell, report)

    def end(self, id: str, claim: int) -> str | None:
        """The attempt is over: what it said last, if that may not be stored. It goes with the settlement."""
        report = self._reports.pop((id, claim), None)
        if report is None:
            return None
        if report.storing is not None:
            report.speaker.loop.call_soon_threadsafe(report.storing.cancel)
        return None if report.said is report.stored else report.said.text

    # On the loop

    def _tell(self, report: Report) -> None:
        if self._drop_if_over(report):
            return
        report.news.set()
        if report.storing is None:
            report.storing = report.speaker.loop.create_task(self._go_on(report), context=Context())

    def _drop_if_over(self, report: Report) -> bool:
        """A thread that the attempt has left behind said it at the last moment, after `end`."""
        id, claim, _, children = report.speaker
        if children.over:
            self._reports.pop((id, claim), None)
        return children.over

    async def _go_on(self, report: Report) -> None:
        id, claim, _, _ = report.speaker
        while not self._drop_if_over(report):
            await report.news.wait()
            report.news.clear()
            report.heard = True  # before it is read: what is said from now on is news again
            progress = report.said
            try:
                if not await self._store(id, claim, progress.text):
                    return  # another holds the claim
                report.stored = progress
            except LedgerError as error:
                logger.warning("the progress of %s waits: %s", id, error)
                report.news.set()
            await asyncio.sleep(EVERY)
