"""Where records live: the protocol that every ledger keeps, and the data that crosses it.

Every change is one guarded statement in a transaction; zero rows changed means "no longer mine".
Durations are seconds, and count on the ledger's own clock.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from segundo.record import Call, Record, State


class Settlement(NamedTuple):
    """What becomes of an attempt: transitions e (terminal), f (queued again, `counted`), g (uncounted)."""

    id: str
    claim: int
    state: State
    reason: str | None = None
    result: str | None = None
    error: str | None = None
    delay: float = 0.0  # until it may run again, when it goes back to queued
    counted: bool = True  # False: nothing of the task's own happened, no failure is counted
    children: tuple[Call, ...] = ()  # recorded in the same transaction, if this ends `succeeded`
    progress: str | None = None  # the attempt's last, stored in the same transaction, if this ends the record


@dataclass(frozen=True, slots=True)
class Beat:
    """What the ledger knows of a process's running records that the process may not."""

    lost: tuple[str, ...]  # no longer held by this owner: stop, drop the outcome
    cancel: tuple[str, ...]  # somebody asked to cancel these


class Published(NamedTuple):
    """What is to be said to a broker now, and when there may be more to say."""

    records: Sequence[Record]  # leased for publishing, the most urgent of each queue first
    again_in: float | None  # seconds until more falls due or a lease ends; None: not without anybody's doing
    full: bool = False  # a window is full: there may be more to say as soon as workers claim


class Ledger(Protocol):
    """The durable store of records and the only source of truth."""

    async def open(self) -> None:
        """Open or create the store; a second call does nothing. Raises LedgerUnusable."""

    async def close(self) -> None:
        """Finish what was posted, and close; a second call does nothing."""

    async def join(self, owner: str) -> None:
        """Register this process as `owner`: from now on it is alive until its process ends."""

    async def leave(self, owner: str) -> None:
        """Mark `owner` as stopping: what it leaves is taken over without counting a crash.

        It is forgotten when this ledger closes, if nothing is in its hands then.
        """

    def listen(self, listener: Callable[[], None], *, cancels: bool = False) -> None:
        """Call `listener`, from any thread, when others may have made records claimable.

        With `cancels`: within a fraction of a second when somebody, here or elsewhere, may have asked to
        cancel what runs. `beat` says what.
        """

    def unlisten(self, listener: Callable[[], None]) -> None:
        """Undo `listen`."""

    async def record(self, calls: Sequence[Call], *, owner: str) -> Sequence[Record]:
        """Store all calls or none; durable on return. Raises LedgerUnavailable after `record_timeout`.

        Idempotent by id. A call whose (task, key) is live is stored as cancelled, reason Duplicate.
        Raises UnknownRecord for one that is to wait for what is neither recorded nor before it in `calls`: so
        waiting never goes in a circle.
        """
        ...

    def release(self, owner: str, ids: Sequence[str]) -> Awaitable[None]:
        """The request is over: the records that `owner` holds may now be claimed (transition b).

        Posted when this returns, so that a cancelled caller still releases; await it to know that it is
        durable.
        """
        ...

    async def forget(self, owner: str, ids: Sequence[str]) -> None:
        """Take back what `owner` holds for a request that failed after it was recorded (transition k).

        From now on none of them runs here, whatever the store answers; gone durably on return. A record that
        another request was told is the same stays, and is released. Raises LedgerUnavailable.
        """
        ...

    def start(self, owner: str, records: Sequence[Record], *, limit: int) -> Awaitable[Sequence[Record]]:
        """Release, and claim in the same step the first `limit` of what may run at once (transition bd).

        For records that their own process has a free slot for, when nothing else is waiting there: no other
        process sees them queued in between. Under way when this returns; gives those that are now claimed.
        """
        ...

    async def claim(
        self,
        owner: str,
        *,
        limit: int,
        queues: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
        suspect: bool = True,
        but: Sequence[str] = (),
    ) -> Sequence[Record]:
        """Take up to `limit` due records, the most urgent first (transition d); durable on return.

        `queues`: from these, None: from all `but` these. With `suspect` at most one of them has crashed a
        process before; without, none.
        """
        ...

    async def publish(
        self,
        *,
        queues: Sequence[str] | None,
        but: Sequence[str] = (),
        window: int,
        limit: int,
        lease: float,
        lost: float | None = None,
    ) -> Published:
        """Lease up to `limit` due records for a message to a broker about each (j); durable on return.

        Only what is not leased already, or was leased and not claimed until its lease ended: its message may
        be lost. At most `window` records of a queue are leased at a time. `lease`: seconds, the same for all
        who publish. `lost`: what was leased longer than so many seconds ago counts as not leased, since the
        broker has forgotten it. A lease hinders no claim.
        """
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        """End attempts (transitions e, f, g); False where the claim was no longer held.

        An ended record keeps its last progress; one that goes back to queued has none.
        The child calls of one that succeeds are recorded with it, as `record` does, and nobody holds them. If
        they cannot be, it ends failed instead, and says why; the others are settled all the same.
        """
        ...

    def take(self, owner: str, id: str) -> Record | None:
        """For a thread, which waits: claim what a message named, if it never crashed a process (d).

        Durable on return; None if it is not to be had. Raises LedgerError.
        """
        ...

    def put(self, settlement: Settlement, stored: Callable[[bool, BaseException | None], None]) -> None:
        """For a thread, which does not wait: settle (e, f, g) with the next change, or milliseconds later.

        `stored` is called in a thread of the ledger: whether the claim was still held, or the error.
        """

    async def beat(self, owner: str, *, running: Sequence[str]) -> Beat:
        """Compare what runs here with what the ledger thinks; strays go back to queued, uncounted."""
        ...

    async def rescue(self) -> Sequence[Record]:
        """Take everything from dead owners (transitions b and h) and return what changed.

        What goes back to queued has no progress.
        """
        ...

    async def cancel(self, id: str) -> Record:
        """Cancel what does not run (i), or ask for it (j). Raises UnknownRecord; a terminal one stays."""
        ...

    async def progress(self, id: str, claim: int, progress: str) -> bool:
        """Store the progress of a running attempt (j); False if the claim is no longer held."""
        ...

    async def prune(self, *, older_than: float | None = None, limit: int = 1000) -> int:
        """Delete up to `limit` terminal records past their retention, or `older_than` seconds old (l)."""
        ...

    async def select(
        self,
        *,
        ids: Sequence[str] | None = None,
        state: State | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> Sequence[Record]:
        """Read records, newest first; `before` is the id to go on from."""
        ...

    async def waits_for(self, ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Of each of these records that waits for others: the ids of those that have not ended."""
        ...

    def watch(self, ids: Sequence[str]) -> AsyncGenerator[Record]:
        """Each of these records as it is now, and again when it has changed, by whichever process.

        Ends when all have ended or are gone; an unknown id gives nothing. Who is slow misses what came
        between, and gets the newest. Raises LedgerUnavailable if the ledger is closed meanwhile.
        """
        ...

    async def next_due(self, queues: Sequence[str] | None = None, *, but: Sequence[str] = ()) -> float | None:
        """Seconds until the first queued record may be claimed (0 if one is due), None if there is none."""
