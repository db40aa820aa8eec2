"""What the model knows of messages to a broker: which records are leased for one, and for how long.

Written from the words of `segundo.ledger.Ledger.publish`. Of which queue how much is leased, where the limit
is too small for all, the ledger may choose.
"""

from collections.abc import Collection, Iterator

from segundo.ledger import Published
from segundo.record import Record
from tests.ledger.agreement import agree, urgency

Leases = dict[str, float | None]  # each record, and until when a message about it counts as under way


def leases_after(
    answer: Published,
    queued: Collection[Record],
    now: float,
    *,
    window: int,
    limit: int,
    lease: float,
    lost: float | None,
) -> Leases:
    """Those of what is queued in the queues that were asked for, once the ledger has answered so."""
    leases: Leases = {record.id: _known(record.published_until, now, lease, lost) for record in queued}
    possible, full = 0, False
    for queue in {record.queue for record in queued}:
        lane = [record for record in queued if record.queue == queue]
        room = max(0, window - sum(_runs(leases[record.id], now) for record in lane))
        ready = [record for record in _in_turn(lane, now) if not _runs(leases[record.id], now)]
        mine = [record.id for record in answer.records if record.queue == queue]
        leased = sorted(ready[: min(room, len(mine))], key=urgency)
        agree(mine, [record.id for record in leased], f"which of {queue} were leased for messages")
        leases.update(dict.fromkeys(mine, now + lease))
        possible, full = possible + min(room, len(ready)), full or len(mine) == room
    agree(len(answer.records), min(limit, possible), "how many were leased for messages")
    agree(answer.full, full, "whether a window is full")
    soonest = min(_moments(queued, leases, now), default=None)
    expected = 0.0 if len(answer.records) == limit else soonest
    agree(answer.again_in, expected, "when there may be more to publish")
    return leases


def _known(until: float | None, now: float, lease: float, lost: float | None) -> float | None:
    """A lease, or None if the broker has forgotten its message: it was published before that."""
    forgotten = until is not None and lost is not None and until - lease < now - lost
    return None if forgotten else until


def _runs(until: float | None, now: float) -> bool:
    return until is not None and until > now


def _in_turn(lane: Collection[Record], now: float) -> list[Record]:
    """What is due, those first that took a process down: there are few of them, and each runs alone."""
    due = sorted((record for record in lane if record.run_at <= now), key=urgency)
    return sorted(due, key=lambda record: record.crashes == 0)


def _moments(queued: Collection[Record], leases: Leases, now: float) -> Iterator[float]:
    """In how many seconds something falls due, or a lease ends."""
    for record in queued:
        for moment in (record.run_at, leases[record.id]):
            if moment is not None and moment > now:
                yield moment - now
