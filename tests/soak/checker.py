"""Judges a storm: the promises as rules over its history and its ledger, each break told in one sentence."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, pairwise

from tests.soak.evidence import FOREVER, Attempt, Evidence, Request
from tests.soak.history import History, PlannedCall
from tests.soak.rows import CLOCKS_APART, Row


class Rule(StrEnum):
    """What can be broken, one name a promise."""

    LOST = "lost"  # an answered call has no record
    TORN = "torn"  # a request's calls were recorded in part
    RECORDED_TWICE = "recorded twice"
    UNFINISHED = "unfinished"  # a record is not terminal at the end
    NO_REASON = "no reason"
    REFUSED_RAN = "refused ran"
    REFUSED_RECORDED = "refused recorded"
    STARTED_TWICE = "started twice"  # a plain function
    OVERLAP = "overlap"  # an attempt started while an earlier one held its claim
    CLAIM_SHARED = "claim shared"  # two attempts ran under one claim, or under claims out of order
    REPEATED = "repeated"  # an attempt that had ended ran again though its process lived
    AFTER_ITS_END = "after its end"  # an attempt started when its record was terminal
    EARLY = "early"  # a call started before its request was over
    ORDER = "order"  # plain calls of one request out of order, or a call before the one it waits for
    UNEARNED = "unearned"  # the ledger tells of a run that never happened
    WRONG_OUTCOME = "wrong outcome"
    RAN_UNRECORDED = "ran unrecorded"
    UNKNOWN_CALL = "unknown call"  # a record or a run of a call that nobody sent
    WRONG_ANSWER = "wrong answer"
    DAMAGED = "damaged"  # the ledger's file
    UNTRUSTED = "untrusted history"
    NOT_ITS_OWN = "not its own"  # a record ended by an attempt that did not hold its claim
    CHILD = "child"  # a child call without its parent's success, or the other way round
    KEY = "key"  # two calls with one key were live at once, or a duplicate is the same as nothing
    PROGRESS = "progress"  # the last that a task said of itself is not in its record


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise: the rule, the call or request it is about, and what happened, in a sentence."""

    rule: Rule
    about: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.sentence}"


Violations = Iterator[Violation]
Judge = Callable[["Evidence"], Violations]


def check(history: History, rows: Sequence[Row]) -> list[Violation]:
    """Every broken promise that the history and the ledger's rows show; none means that all rules held."""
    return judge(Evidence(history, rows))


def judge(evidence: Evidence, *, more: Sequence[Judge] = ()) -> list[Violation]:
    """By the rules of all storms, and `more` of this one's."""
    return [violation for rule in (*RULES, *more) for violation in rule(evidence)]


def answered_calls_are_recorded(evidence: Evidence) -> Violations:
    for request in evidence.requests.values():
        if not request.accepted:
            continue
        for call in request.recordable:
            if evidence.row(call.call) is None:
                yield Violation(
                    Rule.LOST, call.call, f"{call.call} was answered {_status(request)} and has no record"
                )


def requests_are_recorded_whole(evidence: Evidence) -> Violations:
    for request in evidence.requests.values():
        recorded = [call for call in request.recordable if evidence.row(call.call) is not None]
        if 0 < len(recorded) < len(request.recordable) and not request.accepted:
            yield Violation(
                Rule.TORN,
                request.name,
                f"{request.name} has {len(recorded)} of its {len(request.recordable)} calls in the ledger",
            )


def calls_are_recorded_once(evidence: Evidence) -> Violations:
    for call, rows in evidence.rows_of.items():
        if len(rows) > 1:
            yield Violation(
                Rule.RECORDED_TWICE, call, f"{call} has {len(rows)} records: {[row.id for row in rows]}"
            )


def records_end_with_a_reason(evidence: Evidence) -> Violations:
    for row in evidence.rows:
        if not row.terminal:
            yield Violation(Rule.UNFINISHED, row.call, f"{row.call} is still {row.state} (record {row.id})")
        elif row.state != "succeeded" and not row.reason:
            yield Violation(Rule.NO_REASON, row.call, f"{row.call} ended {row.state} and nothing says why")


def refused_requests_leave_nothing(evidence: Evidence) -> Violations:
    for request in evidence.requests.values():
        if not request.refused or evidence.unlearned(request):
            continue
        answer = f"{request.name} was answered {_status(request)}"
        for call in request.sent.calls:
            for attempt in evidence.attempts.get(call.call, ()):
                yield Violation(
                    Rule.REFUSED_RAN, call.call, f"{call.call} ran in {where(attempt)}, but {answer}"
                )
            for row in evidence.rows_of.get(call.call, ()):
                yield Violation(Rule.REFUSED_RECORDED, call.call, f"{call.call} is {row.state}, but {answer}")


def plain_functions_start_once(evidence: Evidence) -> Violations:
    for _, call, attempts in attempts_of(evidence):
        if call.kind != "task" and len(attempts) > 1:
            yield Violation(
                Rule.STARTED_TWICE, call.call, f"{call.call} is {call.kind} and started {len(attempts)} times"
            )


def attempts_never_overlap(evidence: Evidence) -> Violations:
    for _, call, attempts in attempts_of(evidence):
        for earlier, later in combinations(by_claim(attempts), 2):
            if later.started.t < earlier.over:
                yield Violation(
                    Rule.OVERLAP,
                    call.call,
                    f"{call.call} started in {where(later)} while in {where(earlier)} ({earlier.outcome})",
                )


def claims_are_used_once_and_grow(evidence: Evidence) -> Violations:
    for _, call, attempts in attempts_of(evidence):
        # Who was frozen when it had claimed may begin behind the next one.
        held = [each for each in attempts if each.robbed is None or each.started.t < each.robbed]
        claims = [attempt.started.claim for attempt in held if attempt.started.claim is not None]
        if any(later <= earlier for earlier, later in pairwise(claims)):
            yield Violation(
                Rule.CLAIM_SHARED, call.call, f"{call.call} ran under the claims {claims}, in this order"
            )
        row = evidence.row(call.call)
        if row is not None and len(attempts) > row.claim:
            yield Violation(
                Rule.CLAIM_SHARED,
                call.call,
                f"{call.call} started {len(attempts)} times and was claimed {row.claim} times",
            )


def ended_attempts_are_not_repeated(evidence: Evidence) -> Violations:
    for _, call, attempts in attempts_of(evidence):
        for earlier, later in pairwise(by_claim(attempts)):
            again = earlier.outcome == "raised" and earlier.started.attempt == later.started.attempt
            if (again or earlier.outcome == "ran") and not earlier.lost_by(later.started.t):
                yield Violation(
                    Rule.REPEATED,
                    call.call,
                    f"{call.call} {earlier.outcome} as attempt {earlier.started.attempt} of {where(earlier)}"
                    f", which lived; it ran again in {where(later)}",
                )


def nothing_starts_before_its_request_is_over(evidence: Evidence) -> Violations:
    for request, call, attempts in attempts_of(evidence):
        over = evidence.serving_ended(request)
        if call.recordable and attempts[0].started.t < over:
            yield Violation(
                Rule.EARLY, call.call, f"{call.call} started before its request {request.name} was over"
            )


def plain_calls_keep_their_order(evidence: Evidence) -> Violations:
    for request in evidence.requests.values():
        plain = [call.call for call in request.sent.calls if call.kind == "plain"]
        for before, behind in combinations(plain, 2):
            yield from _in_turn(evidence, before, behind)


def calls_wait_for_what_they_come_after(evidence: Evidence) -> Violations:
    for _, call in evidence.calls.values():
        if call.after is None:
            continue
        yield from _in_turn(evidence, call.after, call.call)
        first, second = evidence.row(call.after), evidence.row(call.call)
        if first is not None and second is not None and second.state == "succeeded" != first.state:
            yield Violation(
                Rule.ORDER, call.call, f"{call.call} succeeded after {call.after}, which ended {first.state}"
            )


def _in_turn(evidence: Evidence, before: str, behind: str) -> Violations:
    starts = [attempt.started.t for attempt in evidence.attempts.get(behind, ())]
    for attempt in evidence.attempts.get(before, ()):
        if starts and min(starts) < attempt.over:
            yield Violation(
                Rule.ORDER, behind, f"{behind} started before {before}, which stands before it, was over"
            )


def records_tell_what_happened(evidence: Evidence) -> Violations:
    for row in evidence.rows:
        attempts = evidence.attempts.get(row.call, [])
        outcomes = {attempt.outcome for attempt in attempts}
        if row.state == "succeeded" and "ran" not in outcomes:
            yield Violation(Rule.UNEARNED, row.call, f"{row.call} succeeded, but it {told(attempts)}")
        if row.failures and not outcomes & {"raised", "cancelled"}:
            yield Violation(
                Rule.UNEARNED, row.call, f"{row.call} failed {row.failures} times, but it {told(attempts)}"
            )
        if row.reason == "WorkerLost" and not _may_be_lost(evidence, row, attempts):
            yield Violation(
                Rule.UNEARNED, row.call, f"{row.call} ended WorkerLost, but no process that ran it had died"
            )


def _may_be_lost(evidence: Evidence, row: Row, attempts: Sequence[Attempt]) -> bool:
    """Who ran it had died, was stopping, or out of touch; who had not begun the call left no trace."""
    latest = FOREVER if row.finished is None else row.finished + CLOCKS_APART
    if attempts:
        ends = [end for attempt in attempts for end in (attempt.death, attempt.asked, attempt.robbed)]
    else:
        ends = [*evidence.deaths.values(), *evidence.asked.values(), *evidence.robberies]
    return any(end is not None and end <= latest for end in ends)


def nothing_starts_after_its_record_ended(evidence: Evidence) -> Violations:
    for _, call, attempts in attempts_of(evidence):
        row = evidence.row(call.call)
        if row is None or not row.terminal or row.finished is None:
            continue
        last = attempts[-1]
        if last.started.t > row.finished + CLOCKS_APART and not last.lost_by(last.started.t):
            yield Violation(
                Rule.AFTER_ITS_END,
                call.call,
                f"{call.call} started in {where(last)}, after it had ended {row.state}",
            )


def records_end_as_their_calls_do(evidence: Evidence) -> Violations:
    for row in evidence.rows:
        if row.call not in evidence.calls or not row.terminal:
            continue
        _, call = evidence.calls[row.call]
        if not _fitting(evidence, call, row):
            yield Violation(
                Rule.WRONG_OUTCOME,
                row.call,
                f"{row.call} {call.does} when left alone, and ended {row.state} ({row.reason}), failures "
                f"{row.failures} of {row.attempts}, crashes {row.crashes} of {row.crash_limit}",
            )


def _fitting(evidence: Evidence, call: PlannedCall, row: Row) -> bool:
    if row.reason == "WorkerLost":
        return row.state == "failed" and row.crashes >= row.crash_limit
    if row.reason == "Cancelled":
        return row.state == "cancelled" and call.cancel
    if row.reason == "Duplicate":
        return row.state == "cancelled" and call.key is not None
    if row.state == "cancelled":
        before = evidence.row(call.after) if call.after is not None else None
        return before is not None and before.state != "succeeded"
    if call.does == "succeeds":
        return row.state == "succeeded"
    return row.state == "failed" and row.failures == row.attempts


def runs_and_records_belong_to_calls(evidence: Evidence) -> Violations:
    for row in evidence.rows:
        if row.call not in evidence.calls:
            yield Violation(
                Rule.UNKNOWN_CALL, row.call, f"record {row.id} holds {row.call!r}, which nobody sent"
            )
    for name in evidence.attempts:
        if name not in evidence.calls:
            yield Violation(Rule.UNKNOWN_CALL, name, f"{name!r} ran, and nobody sent it")
    for _, call, attempts in attempts_of(evidence):
        if call.recordable and evidence.row(call.call) is None:
            yield Violation(Rule.RAN_UNRECORDED, call.call, f"{call.call} {told(attempts)} and has no record")


def answers_are_the_expected_ones(evidence: Evidence) -> Violations:
    for request in evidence.requests.values():
        if request.answered is None:
            continue
        status, accepts = request.answered.status, request.sent.accepts
        good = status in (accepts, 503) if accepts is not None else status >= 400
        if not good:
            yield Violation(
                Rule.WRONG_ANSWER, request.name, f"{request.name} was answered {status}, not {accepts}"
            )


def the_history_can_be_trusted(evidence: Evidence) -> Violations:
    if evidence.history.torn > len(evidence.deaths):
        yield Violation(
            Rule.UNTRUSTED,
            "history",
            f"the history has {evidence.history.torn} torn lines, and {len(evidence.deaths)} processes died",
        )


def by_claim(attempts: Sequence[Attempt]) -> list[Attempt]:
    """In the order of their claims, which is that of their starts but for who was frozen in between."""
    return sorted(attempts, key=lambda attempt: (attempt.started.claim or 0, attempt.started.t))


def attempts_of(evidence: Evidence) -> Iterator[tuple[Request, PlannedCall, list[Attempt]]]:
    for name, attempts in evidence.attempts.items():
        if name in evidence.calls:
            yield *evidence.calls[name], attempts


def _status(request: Request) -> str:
    return (
        str(request.answered.status) if request.answered is not None else "nothing, and its endpoint raises"
    )


def where(attempt: Attempt) -> str:
    return f"{attempt.started.process} at {attempt.started.t}"


def told(attempts: Sequence[Attempt]) -> str:
    return "never started" if not attempts else "was " + ", ".join(attempt.outcome for attempt in attempts)


RULES: tuple[Judge, ...] = (
    answered_calls_are_recorded,
    requests_are_recorded_whole,
    calls_are_recorded_once,
    records_end_with_a_reason,
    refused_requests_leave_nothing,
    plain_functions_start_once,
    attempts_never_overlap,
    claims_are_used_once_and_grow,
    ended_attempts_are_not_repeated,
    nothing_starts_before_its_request_is_over,
    plain_calls_keep_their_order,
    calls_wait_for_what_they_come_after,
    records_tell_what_happened,
    nothing_starts_after_its_record_ended,
    records_end_as_their_calls_do,
    runs_and_records_belong_to_calls,
    answers_are_the_expected_ones,
    the_history_can_be_trusted,
)
