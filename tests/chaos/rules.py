"""What is judged beside the soak's rules: whose outcome a record has, its child calls, keys and progress."""

import json
from collections import defaultdict
from itertools import pairwise

from tests.soak.checker import Judge, Rule, Violation, Violations, told
from tests.soak.evidence import Attempt, Evidence
from tests.soak.history import PlannedCall
from tests.soak.rows import CLOCKS_APART, Row


def records_end_by_who_holds_their_claim(evidence: Evidence) -> Violations:
    """Whoever lost its claim, killed, frozen or cut off, settles nothing when it is back."""
    for row in evidence.rows:
        _, call = evidence.calls.get(row.call, (None, None))
        if call is None or row.state not in ("succeeded", "failed") or row.reason == "WorkerLost":
            continue
        attempts = evidence.attempts.get(row.call, [])
        holders = [each for each in attempts if each.started.claim == row.claim]
        if not any(_earned(row, each) for each in holders) or _told_by_another(row, call):
            yield Violation(
                Rule.NOT_ITS_OWN,
                row.call,
                f"{row.call} ended {row.state} (result {row.result}) under claim {row.claim}; claims "
                f"{[each.started.claim for each in attempts]}: it {told(attempts)}",
            )


def _earned(row: Row, attempt: Attempt) -> bool:
    wanted = "ran" if row.state == "succeeded" else "raised"
    if attempt.ended is None or attempt.ended.outcome != wanted:
        return False
    return row.finished is not None and attempt.ended.t <= row.finished + CLOCKS_APART


def _told_by_another(row: Row, call: PlannedCall) -> bool:
    """A declared task returns the claim that it ran under."""
    return row.state == "succeeded" and call.kind == "task" and row.result != str(row.claim)


def child_calls_come_with_their_parents_success(evidence: Evidence) -> Violations:
    for name, (_, call) in evidence.calls.items():
        if call.parent is None:
            continue
        parent, child = evidence.row(call.parent), evidence.row(name)
        succeeded = parent is not None and parent.state == "succeeded"
        if succeeded != (child is not None):
            yield Violation(
                Rule.CHILD,
                name,
                f"{name} is {child.state if child else 'not recorded'}, and {call.parent}, whose child it "
                f"is, {parent.state if parent else 'not recorded'}",
            )
        starts = [attempt.started.t for attempt in evidence.attempts.get(name, ())]
        if parent is not None and starts and min(starts) + CLOCKS_APART < (parent.finished or 0):
            yield Violation(Rule.CHILD, name, f"{name} started before {call.parent} had succeeded")


def one_call_of_a_key_is_live(evidence: Evidence) -> Violations:
    lives: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    keys = {name: call.key for name, (_, call) in evidence.calls.items() if call.key is not None}
    by_id = {row.id: row for row in evidence.rows}
    for row in evidence.rows:
        key = keys.get(row.call)
        if key is None:
            continue
        if row.reason == "Duplicate":
            of = by_id.get(row.same_as or "")
            if of is None or keys.get(of.call) != key:
                yield Violation(Rule.KEY, row.call, f"{row.call} is the same as {row.same_as}, of {key!r}")
        starts = [attempt.started.t for attempt in evidence.attempts.get(row.call, ())]
        if starts and row.finished is not None:
            lives[key].append((min(starts), row.finished, row.call))
    for key, spans in lives.items():
        for (_, end, before), (start, _, behind) in pairwise(sorted(spans)):
            if start + CLOCKS_APART < end:
                yield Violation(Rule.KEY, behind, f"{behind} and {before} were live at once, of {key!r}")


def the_last_progress_is_kept(evidence: Evidence) -> Violations:
    for row in evidence.rows:
        _, call = evidence.calls.get(row.call, (None, None))
        if call is None or not call.steps or row.state != "succeeded":
            continue
        said = json.loads(row.progress or "{}")
        if said.get("done") != call.steps:
            yield Violation(
                Rule.PROGRESS, row.call, f"{row.call} said {call.steps} of {call.steps}, stored is {said}"
            )


MORE: tuple[Judge, ...] = (
    records_end_by_who_holds_their_claim,
    child_calls_come_with_their_parents_success,
    one_call_of_a_key_is_live,
    the_last_progress_is_kept,
)
