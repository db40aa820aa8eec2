"""The judgement: each promise held against the evidence."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from examples.demo.content import SignUp, Upload
from examples.demo.evidence import Evidence
from examples.demo.load import Answer


@dataclass(frozen=True)
class Promise:
    """One call of an answered request: what it was to do, its record's id, and what the evidence says."""

    what: str
    id: str
    kept: bool
    record: str
    """The record's state and reason, or that there is none."""

    @property
    def stopped_by_a_kill(self) -> bool:
        """A plain function that was running when the app was killed: not run again, but listed as failed."""
        return self.what == "audit line" and self.record == "failed WorkerLost"

    @property
    def lost(self) -> bool:
        """Not done, or the ledger does not say that it is; a plain function may also be listed as failed."""
        return not self.stopped_by_a_kill and not (self.kept and self.record == "succeeded")


@dataclass(frozen=True)
class Verdict:
    answers: Sequence[Answer]
    evidence: Evidence
    promises: Sequence[Promise]

    @property
    def lost(self) -> Sequence[Promise]:
        return [promise for promise in self.promises if promise.lost]

    @property
    def twice(self) -> Sequence[str]:
        """The requests, answered or not, that are in the audit log more than once."""
        return [request for request, lines in self.evidence.audited.items() if lines > 1]

    @property
    def refused_but_ran(self) -> Sequence[Answer]:
        """Requests that got an error, and whose work was done all the same."""
        return [answer for answer in self.answers if answer.refused and left_a_trace(answer, self.evidence)]

    @property
    def ran_again(self) -> int:
        """Records that were running when the app was killed and ran again."""
        records = self.evidence.records.values()
        return sum(record["crashes"] > 0 and record["state"] == "succeeded" for record in records)

    @property
    def holds(self) -> bool:
        return not (self.lost or self.twice or self.refused_but_ran)

    def of(self, what: str) -> Sequence[Promise]:
        return [promise for promise in self.promises if promise.what == what]


def judge(answers: Sequence[Answer], evidence: Evidence) -> Verdict:
    promises = [promise for answer in answers if answer.promised for promise in promises_of(answer, evidence)]
    return Verdict(answers, evidence, promises)


def promises_of(answer: Answer, evidence: Evidence) -> Iterator[Promise]:
    """A sign-up promises an email and an audit line, an upload promises a report that says what is true."""

    def promise(what: str, id: str, *, kept: bool) -> Promise:
        record = evidence.records.get(id, {"state": "not in the ledger", "reason": None})
        return Promise(what, id, kept, " ".join(filter(None, (record["state"], record["reason"]))))

    match answer.request:
        case SignUp(id, _, email):
            yield promise("email", answer.body["welcome"], kept=evidence.emails[email] > 0)
            yield promise("audit line", answer.body["audit"], kept=evidence.audited[id] > 0)
        case Upload(facts=facts):
            report = evidence.reports.get(str(facts["sha256"]))
            yield promise("report", answer.body["id"], kept=report == facts)


def left_a_trace(answer: Answer, evidence: Evidence) -> bool:
    match answer.request:
        case SignUp(id, _, email):
            return bool(evidence.emails[email] or evidence.audited[id])
        case Upload(facts=facts):
            return facts["sha256"] in evidence.reports
