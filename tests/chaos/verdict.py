"""What a storm showed: the promises that were broken, and what befell it."""

from collections import Counter
from collections.abc import Sequence

from tests.chaos.rules import MORE
from tests.soak.checker import judge
from tests.soak.evidence import Attempt, Evidence
from tests.soak.history import BrokerKilled, Delivered, History, Killed, Outage, Published, Struck
from tests.soak.rows import Row
from tests.soak.verdict import Verdict


def verdict_of(history: History, rows: Sequence[Row], blows: Sequence[str]) -> Verdict:
    evidence = Evidence(history, rows)
    figures = _figures(evidence) | _of_messages(evidence) | _of_blows(evidence, blows)
    return Verdict(tuple(judge(evidence, more=MORE)), figures)


def _figures(evidence: Evidence) -> dict[str, int]:
    requests = evidence.requests.values()
    attempts = [attempt for several in evidence.attempts.values() for attempt in several]
    states = Counter(row.reason if row.state == "cancelled" else row.state for row in evidence.rows)
    return {
        "requests answered": sum(request.answered is not None for request in requests),
        "refused with 503": sum(
            request.answered is not None and request.answered.status == 503 for request in requests
        ),
        "calls sent": len(evidence.calls),
        "records": len(evidence.rows),
        **{f"… {state}": count for state, count in sorted(states.items(), key=str)},
        "children": sum(
            call.parent is not None and evidence.row(name) is not None
            for name, (_, call) in evidence.calls.items()
        ),
        "attempts": len(attempts),
        "attempts cut off by a kill": sum(attempt.ended is None for attempt in attempts),
        "outcomes that came too late": sum(
            attempt.ended is not None and attempt.robbed is not None and _too_late(evidence, attempt)
            for attempt in attempts
        ),
        "calls that ran again": sum(len(several) > 1 for several in evidence.attempts.values()),
        "ended WorkerLost": sum(row.reason == "WorkerLost" for row in evidence.rows),
        "kills": sum(1 for _ in evidence.of(Killed)),
        "outages longer than a lease": sum(outage.robs is not None for outage in evidence.of(Outage)),
    }


def _too_late(evidence: Evidence, attempt: Attempt) -> bool:
    """Its claim was lost before its code ended: the ledger had given the record to another, or ended it."""
    started = attempt.started
    row = evidence.row(started.call)
    return row is not None and (row.claim > (started.claim or 0) or row.reason == "WorkerLost")


def _of_messages(evidence: Evidence) -> dict[str, int]:
    published = [(event.t, id) for event in evidence.of(Published) for id in event.records]
    killed = list(evidence.of(BrokerKilled))
    again = [set(kill.records) & {id for t, id in published if t >= kill.t} for kill in killed]
    return {
        "messages": len(published),
        "messages for nothing": sum(event.dropped for event in evidence.of(Delivered)),
        "messages that the broker had when it was killed": sum(len(kill.records) for kill in killed),
        "… about records that were published again": sum(len(ids) for ids in again),
    }


def _of_blows(evidence: Evidence, blows: Sequence[str]) -> dict[str, int]:
    hits = Counter(event.blow for event in evidence.of(Struck) if event.hit)
    return {f"hit: {blow}": hits[blow] for blow in blows}
