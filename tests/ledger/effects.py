"""What each verb does to a record at each start, letter by letter. Where nothing is said, nothing changes."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from segundo.record import State
from tests.ledger.starts import ABSENT, STARTS
from tests.ledger.suite import START
from tests.ledger.verbs import CANCELLATION, DELAY, FAILURE, LATER, LEASE, VERBS

NOW = START + LATER  # when the verb happens


class Effect(NamedTuple):
    """Exactly these columns change, to these values; None: the row is gone."""

    letter: str
    changes: dict[str, Any] | None


EFFECTS: dict[tuple[str, str], Effect] = {}


def when(letter: str, verbs: Iterable[str], starts: Iterable[str], changes: dict[str, Any] | None) -> None:
    for verb in verbs:
        for start in starts:
            assert verb in VERBS, verb
            assert start in STARTS, start
            assert (verb, start) not in EFFECTS, f"{verb} on {start} is said twice"
            EFFECTS[verb, start] = Effect(letter, changes)


QUEUED: dict[str, Any] = {"state": State.QUEUED, "run_at": NOW}
FREED = {**QUEUED, "owner": None}
ENDED: dict[str, Any] = {"owner": None, "finished_at": NOW}
CANCELLED = {**ENDED, **CANCELLATION, "state": State.CANCELLED}
IN_VAIN = {"state": State.CANCELLED, "reason": "PredecessorFailed", "finished_at": NOW}

HELD = ["held", "held, for later", "held, behind a queued"]
HELD_FOR_ANOTHER = ["held, and another's", "held, and another's, behind a queued"]
HELD_BY_OTHERS = ["held by a living other", "held by the dead", "held by the dead, behind another"]
BEHIND = [name for name in STARTS if name.startswith("behind ")]
DUE = ["due", "due, and another's"]
UNRUN = [*DUE, "future", "suspect"]
MINE = ["running"]
WANTED = ["running", "running elsewhere", "lost", "lost, out of budget"]
DOOMED = ["running, to be cancelled", "running elsewhere, to be cancelled", "lost, to be cancelled"]
RUNNING = WANTED + DOOMED
NEVER_CLAIMED = ["cancelled at once"]
TERMINAL = ["succeeded", "failed", "cancelled", *NEVER_CLAIMED]
STILL_RUNNING = ["a running", "a doomed", "a lost"]  # the one before
NOT_RUNNING = ["a queued", "a held"]


def behind(before: Iterable[str], *, come_what_may: bool) -> list[str]:
    return [f"behind {name}{', come what may' * come_what_may}" for name in before]


NEW: dict[str, Any] = {"claim": 0, "failures": 0, "crashes": 0, "created_at": NOW, "run_at": NOW}
NEVER_RUN = {**NEW, "state": State.CANCELLED, "owner": None, "finished_at": NOW}

when("a", ["record"], [ABSENT], {**NEW, "state": State.WAITING, "owner": "me"})
when("a", ["record outside a request"], [ABSENT], {**NEW, "state": State.QUEUED, "owner": None})
when("a", ["record behind a live one"], [ABSENT], {**NEW, "state": State.WAITING, "owner": None})
when("a", ["record behind a failed one"], [ABSENT], {**NEVER_RUN, "reason": "PredecessorFailed"})
when("a", ["settle with it as a child"], [ABSENT], {**NEW, "state": State.QUEUED, "owner": None})
when("a", ["settle with it behind another child"], [ABSENT], {**NEW, "state": State.WAITING, "owner": None})
when(
    "a",
    ["settle with it as a second child with its key"],
    [ABSENT],
    {**NEVER_RUN, "reason": "Duplicate"},
)
when("a", ["record with a live key"], [ABSENT], {**NEVER_RUN, "reason": "Duplicate"})

when("b", ["release", "start nothing"], ["held", "held, and another's"], FREED)
when("b", ["release", "start", "start nothing"], ["held, for later"], {"state": State.QUEUED, "owner": None})
when("b", ["forget", "take back", "forget outside a request"], ["held, and another's"], FREED)
when(
    "b",
    ["release", "start", "start nothing", "forget", "take back", "forget outside a request"],
    ["held, and another's, behind a queued"],
    {"owner": None, "run_at": NOW},
)
when("b", ["release of another"], ["held by a living other"], FREED)
when("b", ["start", "start nothing"], ["held, behind a queued"], {"owner": None, "run_at": NOW})
when("b", ["rescue"], ["held by the dead"], FREED)
when("b", ["release"], ["held, behind a queued"], {"owner": None, "run_at": NOW})
when("b", ["rescue"], ["held by the dead, behind another"], {"owner": None, "run_at": NOW})

BOTH_WAYS = [(come_what_may, FREED_BY) for come_what_may, FREED_BY in ((False, IN_VAIN), (True, QUEUED))]
for come_what_may, changes in BOTH_WAYS:
    letter = "c" if come_what_may else "i"
    when("c", ["settle the one before succeeded"], behind(STILL_RUNNING, come_what_may=come_what_may), QUEUED)
    for verb, before in (
        ("settle the one before failed", STILL_RUNNING),
        ("cancel the one before", NOT_RUNNING),
        ("rescue", ["a lost"]),
        ("beat without it", ["a doomed"]),
        ("beat with it", ["a doomed"]),
        ("forget the one before", ["a held"]),
    ):
        when(letter, [verb], behind(before, come_what_may=come_what_may), changes)
when(
    "i",
    ["cancel the one before"],
    [
        "held, behind a queued",
        "held, and another's, behind a queued",
        "held by the dead, behind another",
    ],
    {**IN_VAIN, "owner": None},
)

CLAIMED = {"state": State.RUNNING, "owner": "me", "started_at": NOW}
when("d", ["claim", "claim from its queue", "claim it"], DUE, {**CLAIMED, "claim": 1})
when("d", ["claim no suspect", "claim it as no suspect"], DUE, {**CLAIMED, "claim": 1})
when("d", ["claim", "claim from its queue", "claim it"], ["suspect"], {**CLAIMED, "claim": 2})

STARTED = {"state": State.RUNNING, "claim": 1, "started_at": NOW}
when("bd", ["start"], ["held", "held, and another's"], STARTED)
when("bd", ["start of another"], ["held by a living other"], STARTED)

FAILED = {**ENDED, **FAILURE, "state": State.FAILED, "failures": 1}
when("e", ["settle succeeded"], RUNNING, {**ENDED, "state": State.SUCCEEDED})
when("e", ["settle with a result"], RUNNING, {**ENDED, "state": State.SUCCEEDED, "result": '"done"'})
when("e", ["settle failed"], RUNNING, FAILED)
when("e", ["settle cancelled"], RUNNING, CANCELLED)
when("e", ["settle again"], DOOMED, {**CANCELLED, "failures": 1, "error": FAILURE["error"]})
when("e", ["settle put back"], DOOMED, CANCELLED)
when("e", ["beat without it"], ["running, to be cancelled"], CANCELLED)

PUT_BACK = {"state": State.QUEUED, "owner": None, "run_at": NOW + DELAY}
when("f", ["settle again"], WANTED, {**PUT_BACK, **FAILURE, "failures": 1})
when("g", ["settle put back"], WANTED, PUT_BACK)
when("g", ["beat without it"], MINE, FREED)

when("h", ["rescue"], ["lost"], {**FREED, "crashes": 1})
when("h", ["rescue"], ["lost, to be cancelled"], {**CANCELLED, "crashes": 1})
WORKER_LOST = {**ENDED, "state": State.FAILED, "reason": "WorkerLost", "crashes": 1}
when("h", ["rescue"], ["lost, out of budget"], WORKER_LOST)

when("i", ["cancel"], [*HELD, *HELD_FOR_ANOTHER, *HELD_BY_OTHERS], CANCELLED)
when("i", ["cancel"], [*BEHIND, *UNRUN], {**CANCELLATION, "state": State.CANCELLED, "finished_at": NOW})

when("j", ["cancel"], WANTED, {"cancel_requested": True})
PUBLISHED = {"published_until": NOW + LEASE}
when("j", ["publish", "publish from its queue"], [*DUE, "suspect"], PUBLISHED)
when("j", ["progress"], RUNNING, {"progress": '"half"'})

when("k", ["forget", "take back", "forget outside a request"], [*HELD, *NEVER_CLAIMED], None)
when("k", ["forget outside a request"], ["due", "future", *BEHIND], None)
when("l", ["prune in time", "prune what is older"], TERMINAL, None)

# Written by the ledger in its own words, and so not compared: what `rescue` says of who was lost.
IN_ITS_OWN_WORDS = {"error"}
