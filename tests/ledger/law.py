"""What may never happen, whatever is done: checked between two looks at a ledger."""

from collections.abc import Mapping

from segundo.record import TRANSITIONS, Record, Transition

Records = Mapping[str, Record]

COUNTERS = ("claim", "failures", "crashes")
# What row b and row j, which leave the state as it is, may write.
WITHIN_A_STATE = {
    "b": {"owner", "run_at"},
    "j": {"cancel_requested", "progress", "published_until"},
}
# What is written once, when the call is recorded.
FOR_EVER = (
    *("id", "task", "queue", "priority", "attempts", "crash_limit", "key", "same_as", "retry_of", "format"),
    *("arguments", "carried", "retention", "created_at"),
)


def families(row: Transition) -> list[str]:
    """The verbs that may make this transition."""
    return row.by.split(", ")


def changed_columns(earlier: Record | None, later: Record) -> dict[str, object]:
    return {
        column: getattr(later, column)
        for column in Record._fields
        if earlier is None or getattr(earlier, column) != getattr(later, column)
    }


def check_the_table(earlier: Records, later: Records, family: str) -> None:
    """Every difference is a row of the table that this verb may make, and counters only grow."""
    for id in {*earlier, *later}:
        before, after = earlier.get(id), later.get(id)
        if before != after:
            _check_transition(before, after, family)
        if before is not None and after is not None and before != after:
            _check_columns(before, after)


def _check_transition(before: Record | None, after: Record | None, family: str) -> None:
    source, target = before and before.state, after and after.state
    rows = [
        row
        for row in TRANSITIONS
        if row.source == source and row.target == target and family in families(row)
    ]
    assert rows, f"{family} made {source} -> {target}, which is no row of the table: {before} -> {after}"
    if before is not None and after is not None and source == target:
        allowed = set[str]().union(*(WITHIN_A_STATE[row.letter] for row in rows))
        assert changed_columns(before, after).keys() <= allowed


def _check_columns(before: Record, after: Record) -> None:
    assert not before.state.terminal, f"a terminal record changed: {before} -> {after}"
    for column in FOR_EVER:
        assert getattr(before, column) == getattr(after, column), column
    for counter in COUNTERS:
        assert 0 <= getattr(after, counter) - getattr(before, counter) <= 1, counter
    assert (after.finished_at is not None) == after.state.terminal
    assert (after.claim > before.claim) == (after.state == "running" != before.state)
