"""A ledger in plain Python, without SQL, threads or files: what the real one must be like, column by column.

Written from the table in `record.py` and the words of `segundo.ledger.Ledger`. Each verb takes the arguments
of the ledger's method and, first, what the ledger answered: that is checked, and where the ledger may choose
(which of many is claimed or pruned) its choice is taken over.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

from segundo.errors import UnknownRecord
from segundo.ledger import Beat, Published, Settlement
from segundo.record import Call, Link, Record, State
from tests.ledger.agreement import Divergence, Told, agree, agree_on, agree_on_urgency, urgency, wiped
from tests.ledger.book import LETTERS, Book
from tests.ledger.messages import leases_after


@dataclass(frozen=True)
class Process:
    """Who owns records. `stopping`: it said that it would go."""

    alive: bool = True
    stopping: bool = False


@dataclass
class Model(Book):
    processes: dict[str, Process] = field(default_factory=dict)
    seen: Mapping[str, Record] = field(default_factory=dict)  # what is in the ledger after the verb
    again: bool = False  # the changes of a batch that failed: each may have been applied before
    refused: list[tuple[str, Sequence[str], bool]] = field(default_factory=list)

    def copy(self) -> "Model":
        return replace(
            self, records=copy(self.records), links=copy(self.links), processes=copy(self.processes)
        )

    def compare(self, records: Mapping[str, Record], waits_for: Mapping[str, Collection[str]]) -> None:
        """Every column of every record, and who waits for whom."""
        agree(sorted(records), sorted(self.records), "which records there are")
        for id, record in self.records.items():
            self.records[id] = agree_on(record, records[id], "")
        agree({id: sorted(ids) for id, ids in waits_for.items()}, self.waits(), "who waits for whom")

    # Calls become records

    def record(self, answer: Any, *, calls: Sequence[Call], owner: str) -> None:
        new = self.copy()
        try:
            expected = [new.store("record", call, owner) for call in calls]
        except UnknownRecord:
            if not isinstance(answer, UnknownRecord):
                raise Divergence(f"recorded behind a record that does not exist: {answer}") from None
            # Who is told that these calls are not recorded must not find them, whoever recorded them before.
            self.refused = [*self.refused, (owner, [c.id for c in calls], all(c.held for c in calls))]
            return
        if isinstance(answer, Exception):
            raise Divergence(f"not recorded: {answer!r}")
        agree(len(answer), len(expected), "how many were recorded")
        for told, stored, call in zip(answer, expected, calls, strict=True):
            if call.id in self.records:
                agree(told.id, call.id, "what was recorded before")
            else:
                new.records[call.id] = agree_on(stored, told, " as it was recorded")
        self.records, self.links = new.records, new.links

    def store(self, verb: str, call: Call, owner: str) -> Record:
        """Transition a. Raises UnknownRecord."""
        links: dict[str, str] = {}
        failed: set[str] = set()
        for link in call.after:
            before = self._before(link)
            if not before.state.terminal:
                links.setdefault(before.id, link.on_failure)
            elif before.state is not State.SUCCEEDED and link.on_failure == "cancel":
                failed.add(before.id)
        if call.id in self.records:
            return self.records[call.id]
        live = self._live(call)
        record = self._new(call, owner, behind=bool(links))
        if live is not None:
            record = _never(record, self.now)._replace(reason="Duplicate", same_as=live.id)
        elif failed:
            error: Any = Told("PredecessorFailed", frozenset(failed))
            record = _never(record, self.now)._replace(reason="PredecessorFailed", error=error)
        else:
            self.links.update({(before, call.id): how for before, how in links.items()})
        assert ("a", None, record.state, verb) in LETTERS
        self.records[call.id] = record = wiped(record)
        return record

    def _before(self, link: Link) -> Record:
        """Who waits for a duplicate waits for what it is the same as."""
        named = self.records.get(link.before)
        before = self.records.get(named.same_as) if named and named.same_as else named
        if before is None:
            raise UnknownRecord(link.before)
        return before

    def _live(self, call: Call) -> Record | None:
        of_its_task = (record for record in self.records.values() if record.task == call.task)
        live = (record for record in of_its_task if record.key == call.key and not record.state.terminal)
        return None if call.key is None else next(live, None)

    def _new(self, call: Call, owner: str, *, behind: bool) -> Record:
        said = {column: getattr(call, column) for column in Call._fields if column in Record._fields}
        nothing = dict.fromkeys(Record._fields)
        new: dict[str, Any] = {
            "state": State.WAITING if call.held or behind else State.QUEUED,
            "owner": owner if call.held else None,
            "created_at": self.now,
            "run_at": self.now + call.delay if call.run_at is None else call.run_at,
            "cancel_requested": False,
            **dict.fromkeys(("claim", "failures", "crashes"), 0),
        }
        return Record(**{**nothing, **said, **new})  # type: ignore[arg-type]

    # The request ends

    def release(self, answer: Any, *, owner: str, ids: Iterable[str]) -> None:
        agree(answer, None, "release")
        self._release("release", owner, ids)

    def _release(self, verb: str, owner: str, ids: Iterable[str]) -> list[str]:
        """Transition b."""
        held = [id for id in ids if self._is(id, State.WAITING) and self.records[id].owner == owner]
        for id in held:
            state = State.WAITING if self._waits(id) else State.QUEUED
            run_at = max(self.records[id].run_at, self.now)
            self._change(verb, "b", id, owner=None, state=state, run_at=run_at)
        return held

    def forget(self, answer: Any, *, owner: str, ids: Collection[str]) -> None:
        agree(answer, None, "forget")
        self._take_back(owner, ids, held=True)

    def take_back(self) -> None:
        """What the next transaction does first: the calls of refused requests go."""
        refused, self.refused = self.refused, []
        for whose in dict.fromkeys((owner, held) for owner, _, held in refused):
            ids = dict.fromkeys(id for owner, some, held in refused if (owner, held) == whose for id in some)
            self._take_back(whose[0], ids, held=whose[1])

    def _take_back(self, owner: str, ids: Collection[str], *, held: bool) -> None:
        """Transition k."""
        others = [record for id, record in self.records.items() if id not in ids]
        promised = {record.same_as for record in others if record.same_as in ids}
        self._release("forget", owner, [id for id in ids if id in promised])
        gone = [id for id in ids if id not in promised and self._may_go(id, owner, held)]
        for id in gone:
            self._delete("forget", "k", id)
        self._ended("forget", gone)

    def _may_go(self, id: str, owner: str, held: bool) -> bool:
        """What never ran: cancelled, or in the owner's hands; outside a request, in nobody's too."""
        record = self.records.get(id)
        if record is None or record.claim or record.state in (State.SUCCEEDED, State.FAILED):
            return False
        return record.state is State.CANCELLED or record.owner in ((owner,) if held else (owner, None))

    def start(self, answer: Any, *, owner: str, records: Sequence[Record], limit: int) -> None:
        """Transition bd, or b."""
        ids = [record.id for record in records]
        started = [id for id in ids[:limit] if self._may_start(id, owner)]
        for id in started:
            self._run("start", "bd", id, owner)
        self._release("start", owner, [id for id in ids if id not in started])
        agree(answer, [self.records[id] for id in started], "what was started")

    def _may_start(self, id: str, owner: str) -> bool:
        if not self._is(id, State.WAITING) or self._waits(id):
            return False
        return self.records[id].owner == owner and self.records[id].run_at <= self.now

    def _run(self, verb: str, letter: str, id: str, owner: str) -> None:
        claim = self.records[id].claim + 1
        self._change(verb, letter, id, state=State.RUNNING, owner=owner, claim=claim, started_at=self.now)

    # Attempts

    def claim(
        self,
        answer: Any,
        *,
        owner: str,
        limit: int,
        queues: Collection[str] | None = None,
        ids: Collection[str] | None = None,
        suspect: bool = True,
    ) -> None:
        """Transition d: at most one suspect, then the most urgent; between queues the ledger may choose."""
        asked = [r for r in self.due() if ids is None or r.id in ids]
        asked = [r for r in asked if queues is None or r.queue in queues]
        suspects = [record for record in asked if record.crashes]
        others = [record for record in asked if not record.crashes]
        first = min(1, limit, len(suspects)) if suspect else 0
        told = [record.id for record in answer]
        taken, rest = told[:first], told[first:]
        agree(len(rest), max(0, min(limit - first, len(others))), "how many were claimed")
        agree_on_urgency(taken, suspects, one_queue=ids is not None)
        agree_on_urgency(rest, others, one_queue=ids is not None)
        for id in told:
            self._run("claim", "d", id, owner)
        agree(answer, [self.records[id] for id in told], "what was claimed")

    def due(self) -> list[Record]:
        queued = [record for record in self.records.values() if record.state is State.QUEUED]
        return sorted((record for record in queued if record.run_at <= self.now), key=urgency)

    def settle(self, answer: Any, *, settlement: Settlement) -> None:
        """Transitions e, f, g of one attempt."""
        mine = (
            self._is(settlement.id, State.RUNNING) and self.records[settlement.id].claim == settlement.claim
        )
        possible = settlement.state.terminal or settlement.state is State.QUEUED
        if answer is True and not mine and self.again and self._settled_so(settlement):
            return
        agree(answer, mine and possible, f"whether {settlement} was settled")
        if mine and possible:
            self._settle("settle", settlement)

    def _settled_so(self, settlement: Settlement) -> bool:
        record = self.records.get(settlement.id)
        return record is not None and record.claim == settlement.claim and record.owner is None

    def _settle(self, verb: str, settlement: Settlement) -> None:
        new = self.copy()
        new._end(verb, settlement)
        try:
            if settlement.state is State.SUCCEEDED:
                for child in settlement.children:
                    new.store(verb, child._replace(held=False), settlement.id)
        except UnknownRecord:
            new = self.copy()
            refused: Any = Told("UnknownRecord")
            new._end(
                verb,
                settlement._replace(state=State.FAILED, reason="ChildRefused", result=None, error=refused),
            )
        if new.records[settlement.id].state.terminal:
            new._ended(verb, [settlement.id])
        self.records, self.links = new.records, new.links

    def _end(self, verb: str, settlement: Settlement) -> None:
        record = self.records[settlement.id]
        failed = settlement.counted and settlement.state in (State.FAILED, State.QUEUED)
        told: dict[str, Any] = {
            "owner": None,
            "published_until": None,
            "failures": record.failures + failed,
            "reason": settlement.reason,
            "result": settlement.result,
            "error": settlement.error or record.error,
            "progress": settlement.progress or record.progress,
        }
        ended = {"finished_at": self.now}
        if settlement.state is not State.QUEUED:
            self._change(verb, "e", record.id, state=settlement.state, **told, **ended)
        elif record.cancel_requested:
            cancelled = {**told, "state": State.CANCELLED, "reason": "Cancelled"}
            self._change(verb, "e", record.id, **cancelled, **ended)
        elif failed and record.attempts is not None and record.failures + 1 >= record.attempts:
            self._change(verb, "e", record.id, state=State.FAILED, **told, **ended)
        else:
            letter = "f" if settlement.counted else "g"
            again = {"run_at": self.now + settlement.delay, "progress": None}
            self._change(verb, letter, record.id, state=State.QUEUED, **{**told, **again})

    def progress(self, answer: Any, *, id: str, claim: int, progress: str) -> None:
        """Transition j."""
        mine = self._is(id, State.RUNNING) and self.records[id].claim == claim
        agree(answer, mine, "whether the progress was stored")
        if mine:
            self._change("progress", "j", id, progress=progress)

    def beat(self, answer: Any, *, owner: str, running: Collection[str]) -> None:
        held = {r.id for r in self.records.values() if r.owner == owner and r.state is State.RUNNING}
        asked = {id for id in held if self.records[id].cancel_requested}
        known = Beat(lost=tuple(sorted(set(running) - held)), cancel=tuple(sorted(asked & set(running))))
        agree(Beat(tuple(sorted(answer.lost)), tuple(sorted(answer.cancel))), known, "beat")
        for id in held - set(running):
            claim, reason = self.records[id].claim, self.records[id].reason
            self._settle("beat", Settlement(id, claim, State.QUEUED, reason, counted=False))

    # From outside

    def publish(
        self, answer: Published, *, queues: Collection[str] | None, but: Collection[str] = (), **how: Any
    ) -> None:
        """Transition j of what is queued."""
        queued = [record for record in self.records.values() if record.state is State.QUEUED]
        asked = [r for r in queued if (r.queue not in but if queues is None else r.queue in queues)]
        for id, until in leases_after(answer, asked, self.now, **how).items():
            if until != self.records[id].published_until:
                self._change("publish", "j", id, published_until=until)
        agree(answer.records, [self.records[told.id] for told in answer.records], "what was published")

    def cancel(self, answer: Any, *, id: str) -> None:
        """Transition i, or j."""
        if id not in self.records:
            if not isinstance(answer, UnknownRecord):
                raise Divergence(f"cancelled what does not exist: {answer}")
            return
        if self._is(id, State.WAITING, State.QUEUED):
            self._cancel("cancel", id, reason="Cancelled")
            self._ended("cancel", [id])
        elif self._is(id, State.RUNNING):
            self._change("cancel", "j", id, cancel_requested=True)
        if isinstance(answer, Exception):
            raise Divergence(f"not cancelled: {answer!r}")
        self.records[id] = agree_on(self.records[id], answer, " as it was cancelled")

    def _cancel(self, verb: str, id: str, **columns: Any) -> None:
        ended = {"state": State.CANCELLED, "owner": None, "finished_at": self.now, "published_until": None}
        self._change(verb, "i", id, **ended, **columns)
        self.links = {pair: how for pair, how in self.links.items() if pair[1] != id}

    def _ended(self, verb: str, ids: Collection[str]) -> None:
        """Transitions c and i of all that waited for these."""
        while ids:
            behind = {pair: how for pair, how in self.links.items() if pair[0] in ids}
            for pair in behind:
                del self.links[pair]
            in_vain: dict[str, set[str]] = {}
            for (before, after), on_failure in behind.items():
                if on_failure == "cancel" and not self._is(before, State.SUCCEEDED):
                    in_vain.setdefault(after, set()).add(before)
            for after, failed in in_vain.items():
                error = Told("PredecessorFailed", frozenset(failed))
                self._cancel(verb, after, reason="PredecessorFailed", error=error)
            for after in {after for _, after in behind} - in_vain.keys():
                if self.records[after].owner is None and not self._waits(after):
                    run_at = max(self.records[after].run_at, self.now)
                    self._change(verb, "c", after, state=State.QUEUED, run_at=run_at)
            ids = list(in_vain)

    def rescue(self, answer: Any) -> None:
        """Transitions b and h of all that the dead left."""
        rescued: list[str] = []
        for owner, process in [pair for pair in self.processes.items() if not pair[1].alive]:
            del self.processes[owner]
            left = [record for record in self.records.values() if record.owner == owner]
            rescued += [record.id for record in left]
            running = [record for record in left if record.state is State.RUNNING]
            for record in running:
                self._rescue(record, crashed=not process.stopping)
            self._release("rescue", owner, [record.id for record in left])
            self._ended("rescue", [r.id for r in running if self.records[r.id].state.terminal])
        agree(sorted(record.id for record in answer), sorted(rescued), "what was rescued")

    def _rescue(self, record: Record, *, crashed: bool) -> None:
        left: dict[str, Any] = {
            "owner": None,
            "published_until": None,
            "crashes": record.crashes + crashed,
        }
        ended = {**left, "finished_at": self.now}
        budget = record.crash_limit - record.crashes if crashed else record.crash_limit
        if record.cancel_requested:
            self._change("rescue", "h", record.id, state=State.CANCELLED, reason="Cancelled", **ended)
        elif budget > 0:
            again = {"run_at": self.now, "progress": None}
            self._change("rescue", "h", record.id, state=State.QUEUED, **again, **left)
        else:
            lost = {"reason": "WorkerLost", "error": Told("WorkerLost")}
            self._change("rescue", "h", record.id, state=State.FAILED, **lost, **ended)

    def prune(self, answer: Any, *, older_than: float | None = None, limit: int = 1000) -> None:
        """Transition l. Which of too many the ledger may choose."""
        past = {id for id, record in self.records.items() if self._past(record, older_than)}
        gone = past if len(past) <= limit else past - self.seen.keys()
        agree(answer, min(limit, len(past)), "how many were pruned")
        agree(len(gone), answer, "how many are gone")
        for id in gone:
            self._delete("prune", "l", id)

    def _past(self, record: Record, older_than: float | None) -> bool:
        if record.finished_at is None:
            return False
        if older_than is not None:
            return record.finished_at <= self.now - older_than
        return record.retention is not None and record.finished_at + record.retention <= self.now


def _never(record: Record, now: float) -> Record:
    return record._replace(state=State.CANCELLED, owner=None, finished_at=now)
