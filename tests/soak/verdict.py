"""What a storm showed: the promises that were broken, and how much was tried."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.soak.checker import Rule, Violation, judge
from tests.soak.evidence import Evidence
from tests.soak.history import Asked, History, Killed, Stalled
from tests.soak.rows import Row


@dataclass(frozen=True, slots=True)
class Verdict:
    """The violations of a storm, and its figures by name."""

    violations: tuple[Violation, ...]
    figures: dict[str, int]

    @classmethod
    def of(cls, history: History, rows: Sequence[Row], *, damage: str | None = None) -> "Verdict":
        evidence = Evidence(history, rows)
        violations = judge(evidence)
        if damage is not None:
            violations.append(Violation(Rule.DAMAGED, "ledger", f"the ledger's file is damaged: {damage}"))
        return cls(tuple(violations), _figures(evidence))

    @property
    def rules(self) -> set[Rule]:
        return {violation.rule for violation in self.violations}

    def idle(self, *names: str) -> list[str]:
        """Those of these figures that are 0: what the storm did not try at all."""
        return [name for name in names if not self.figures[name]]

    def told(self, *, most: int = 20) -> str:
        """Figures and violations as text, `most` violations of each rule."""
        lines = [f"{count:>8}  {name}" for name, count in self.figures.items()]
        by_rule = Counter(violation.rule for violation in self.violations)
        for rule, count in by_rule.items():
            lines.append(f"BROKEN    {rule}: {count}")
            these = [violation.sentence for violation in self.violations if violation.rule is rule]
            lines += [f"            {sentence}" for sentence in these[:most]]
        return "\n".join(lines)


def _figures(evidence: Evidence) -> dict[str, int]:
    requests = evidence.requests.values()
    attempts = [attempt for several in evidence.attempts.values() for attempt in several]
    rows = evidence.rows
    return {
        "requests sent": len(requests),
        "accepted": sum(request.accepted for request in requests),
        "refused": sum(request.refused for request in requests),
        "refused with 503": sum(
            request.answered is not None and request.answered.status == 503 for request in requests
        ),
        "refused, and kept by a commit nobody could learn of": sum(
            evidence.unlearned(request) and any(evidence.row(call.call) for call in request.sent.calls)
            for request in requests
        ),
        "without an answer": sum(request.answered is None for request in requests),
        "records": len(rows),
        "attempts": len(attempts),
        "attempts cut off by a kill": sum(attempt.ended is None for attempt in attempts),
        "attempts cancelled at a stop": sum(attempt.outcome == "cancelled" for attempt in attempts),
        "calls that ran again": sum(len(several) > 1 for several in evidence.attempts.values()),
        "ended WorkerLost": sum(row.reason == "WorkerLost" for row in rows),
        "kills": sum(1 for _ in evidence.of(Killed)),
        "stops in good order": sum(1 for _ in evidence.of(Asked)),
        "processes that ended unasked": len(evidence.born & evidence.deaths.keys() - evidence.stopped),
        "stalls": sum(1 for _ in evidence.of(Stalled)),
    }
