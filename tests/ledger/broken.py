"""The SQLite ledger broken on purpose, one guard at a time, so that the model is seen to find each."""

from collections.abc import Callable
from typing import Any

from segundo.ledger import Beat, refused, settling
from segundo.ledger.sqlite import statements as sql
from segundo.ledger.sqlite.turns import Turns

Put = Callable[[object, str, object], None]


def statement(name: str, part: str, other: str) -> Callable[[Put], None]:
    """A statement without one of its guards."""

    def break_it(put: Put) -> None:
        whole: str = getattr(sql, name)
        assert part in whole, f"{part!r} is no longer in {name}: break it anew"
        put(sql, name, whole.replace(part, other))

    return break_it


def verb(change: type, **methods: Any) -> Callable[[Put], None]:
    """A verb that does something else."""

    def break_it(put: Put) -> None:
        for name, method in methods.items():
            put(change, name, method)

    return break_it


def the_living_are_robbed(put: Put) -> None:
    bury = Turns.bury
    put(Turns, "bury", lambda self, number: bury(self, number) or number % 2 == 0)


WAYS: dict[str, Callable[[Put], None]] = {
    "no fence when an attempt succeeds": statement("SUCCEED", "AND records.claim = mine.value", ""),
    "no fence when an attempt ends": statement("SETTLE", "AND claim = :claim", ""),
    "no fence for progress": statement("PROGRESS", "AND claim = ?", "AND ? >= 0"),
    "what has ended ends again": statement("SETTLE", "AND state = 'running'", ""),
    "a wish to cancel is forgotten": statement("SETTLE", "AND NOT cancel_requested", ""),
    "failures are not counted": statement("SETTLE", "failures + :failed", "failures"),
    "one attempt more than allowed": statement("SETTLE", "failures + 1 < attempts", "failures < attempts"),
    "released by anybody": statement("RELEASE", "AND owner = ?", "AND ? <> ''"),
    "started by anybody": statement("START", "AND owner = :owner", ""),
    "started before it is due": statement("START", "AND run_at <= :now", ""),
    "started before the one that it waits for": statement("START", "AND NOT EXISTS", "OR EXISTS"),
    "let go on before its request has ended": statement("QUEUE_FREED", "AND owner IS NULL", ""),
    "let go on though another stands before it": statement("QUEUE_FREED", "links.after = records.id", "0"),
    "let go on though the one before it failed": statement("SUCCESSFUL", "AND state = 'succeeded'", ""),
    "claimed before it is due": statement("CLAIM", "AND run_at <= :now", ""),
    "claimed whatever its priority": statement("CLAIM", "priority = 9", "priority = 1"),
    "claimed by id from any queue": statement("CLAIM_IDS", ":queues IS NULL OR", "1 OR"),
    "several suspects at once": statement("CLAIM", "crashes = 0", "crashes >= 0"),
    "published before it is due": statement("PUBLISH", "AND run_at <= :now", ""),
    "published though a message is under way": statement("PUBLISH", "published_until <= :now", "1"),
    "published once for ever": statement("PUBLISH", "OR published_until <= :now", ""),
    "published whatever its priority": statement("PUBLISH", "priority = 9", "priority = 1"),
    "suspects are never published": statement("PUBLISH_SUSPECT", "crashes > 0", "crashes < 0"),
    "a window without an end": statement("PUBLISHED", "count(*)", "0"),
    "the ends of leases are not told": statement("PUBLISHED", "min(published_until)", "NULL"),
    "what a broker has forgotten waits for its lease": statement("LOSE", "state = 'queued'", "0"),
    "what a broker has not forgotten is sent again": statement("LOSE", "AND published_until < :before", ""),
    "of what has ended a message is under way": statement("SUCCEED", "published_until = NULL,", ""),
    "crashes are not counted": statement("RESCUE_RUNNING", "crashes + :crashed", "crashes"),
    "a crash budget without an end": statement("RESCUE_RUNNING", "crashes < crash_limit", "crash_limit > 0"),
    "a stop spends the crash budget": statement("RESCUE_RUNNING", "(:crashed = 0 AND crash_limit > 0)", "0"),
    "the dead keep what waited": statement("RESCUE_WAITING", "AND state = 'waiting'", "AND 0"),
    "the living are robbed": the_living_are_robbed,
    "ended records go before their time": statement("PRUNE", "finished_at + retention", "finished_at"),
    "secrets outlive their records": statement("CANCEL", "CASE WHEN wipe IS NULL", "CASE WHEN 1"),
    "ended records stay": statement("PRUNE", "LIMIT ?", "LIMIT 0 * ?"),
    "live keys are not seen": statement("LIVE_KEY", "AND finished_at IS NULL", "AND 0"),
    "a duplicate is nobody to wait for": statement(
        "BEFORE", "coalesce((SELECT same_as", "coalesce((SELECT NULL"
    ),
    "what was promised to another is forgotten": statement("PROMISED", "WHERE", "WHERE 0 AND"),
    "another's request is forgotten": statement("FORGET", "AND owner = :owner", ""),
    "a refused request stays": verb(refused.Forget, apply=lambda self, tx: None),
    "strays stay": verb(settling.TakeBeat, apply=lambda self, tx: Beat((), ())),
}
