"""Every statement that the SQLite ledger runs, by name; the comment says which index serves it.

Lists travel as one JSON parameter, so that a statement is one text and one step however many rows it is for.
"""

from segundo.ledger.transaction import COMMON
from segundo.record import Record

ALL = ", ".join(Record._fields)

# A counter stops here, so that no number that somebody wrote into the file makes a statement fail by overflow
# (test_rows_with_numbers_at_their_limits_stop_nobody).
_MOST = 2**62

# record: primary key. Idempotent, so that a batch whose outcome is unknown can be run again.
INSERT = f"""
INSERT INTO records ({ALL}) VALUES ({", ".join("?" * len(Record._fields))})
ON CONFLICT (id) DO NOTHING
"""
# record: the same for a call that has no more than these columns; a row costs by its columns.
_COMMON_ROW = f"({', '.join('?' * len(COMMON))})"
# By how many rows one statement inserts, the most first.
INSERT_COMMON = {
    rows: f"""
INSERT INTO records ({", ".join(COMMON)}) VALUES {", ".join([_COMMON_ROW] * rows)}
ON CONFLICT (id) DO NOTHING
"""
    for rows in (32, 16, 8, 4, 2, 1)
}
# record: live_keys.
LIVE_KEY = "SELECT id FROM records WHERE task = ? AND key = ? AND finished_at IS NULL AND id <> ?"
# record: primary key. What waits for a duplicate waits for the live record that it is the same as.
BEFORE = """
SELECT id, state FROM records WHERE id = coalesce((SELECT same_as FROM records WHERE id = :id), :id)
"""
# record: primary key of links.
LINK = "INSERT INTO links (before, after, on_failure) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"

# forget (k): primary key. Only what never ran; what nobody holds was recorded outside a request.
FORGET = """
DELETE FROM records WHERE id IN (SELECT value FROM json_each(:ids)) AND claim = 0
    AND (state = 'waiting' AND owner = :owner OR state = 'cancelled'
         OR NOT :held AND state IN ('waiting', 'queued') AND owner IS NULL)
RETURNING id
"""
# forget: duplicates. What others, who are not forgotten too, were found to be the same as.
PROMISED = """
WITH forgotten (id) AS (SELECT value FROM json_each(?))
SELECT DISTINCT same_as FROM records
WHERE same_as IN (SELECT id FROM forgotten) AND id NOT IN (SELECT id FROM forgotten)
"""
# forget: writes in any case. A commit that raised may lie whole in the WAL, to be found when all have died;
# the next that writes lies over it.
FORGOTTEN = """
INSERT INTO meta VALUES ('forgotten_at', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
# forget: links_by_after.
FORGET_LINKS = "DELETE FROM links WHERE after IN (SELECT value FROM json_each(?))"

# release (b): owned, by owner and id; links_by_after.
RELEASE = """
UPDATE records SET owner = NULL, run_at = max(run_at, ?),
    state = CASE WHEN EXISTS (SELECT 1 FROM links WHERE links.after = records.id)
            THEN 'waiting' ELSE 'queued' END
WHERE id IN (SELECT value FROM json_each(?)) AND owner = ? AND state = 'waiting'
"""

# start (b and d at once): owned, by owner and id; links_by_after. The owner stays: of its request, then of
# its attempt.
START = """
UPDATE records SET state = 'running', claim = claim + 1, started_at = :now
WHERE id IN (SELECT value FROM json_each(:ids)) AND owner = :owner AND state = 'waiting' AND run_at <= :now
    AND NOT EXISTS (SELECT 1 FROM links WHERE links.after = records.id)
"""
# claim: claimable (suspects), one seek for each queue that has something queued.
QUEUES = """
WITH RECURSIVE names (queue) AS (
    SELECT min(queue) FROM records WHERE state = 'queued' AND crashes = 0
    UNION ALL
    SELECT (SELECT min(queue) FROM records WHERE state = 'queued' AND crashes = 0 AND queue > names.queue)
    FROM names WHERE names.queue IS NOT NULL
)
SELECT queue FROM names WHERE queue IS NOT NULL
"""
SUSPECT_QUEUES = QUEUES.replace("crashes = 0", "crashes > 0")


_CLAIMED = f"SET state = 'running', claim = min(claim + 1, {_MOST}), owner = :owner, started_at = :now"


def _lanes(crashes: str, *, then: str = _CLAIMED) -> str:
    lane = """
    SELECT * FROM (SELECT id FROM records WHERE state = 'queued' AND {crashes} AND queue = :queue
                   AND priority = {priority} AND run_at <= :now ORDER BY run_at, id LIMIT :limit)"""
    lanes = "\n    UNION ALL".join(
        lane.format(priority=priority, crashes=crashes) for priority in range(9, -1, -1)
    )
    return f"""
UPDATE records {then}
WHERE id IN (SELECT id FROM ({lanes}) LIMIT :limit) AND state = 'queued'
RETURNING {ALL}
"""


# claim (d): one seek of claimable (suspects) per lane of a queue, the most urgent first; LIMIT ends the walk.
CLAIM = _lanes("crashes = 0")
CLAIM_SUSPECT = _lanes("crashes > 0")
# claim by id (d): primary key; only the ids asked for are sorted.
CLAIM_IDS = f"""
UPDATE records {_CLAIMED}
WHERE id IN (
    SELECT id FROM records WHERE id IN (SELECT value FROM json_each(:ids))
        AND state = 'queued' AND run_at <= :now AND crashes = 0
        AND (:queues IS NULL OR queue IN (SELECT value FROM json_each(:queues)))
    ORDER BY priority DESC, run_at, id LIMIT :limit) AND state = 'queued'
RETURNING {ALL}
"""
CLAIM_SUSPECT_IDS = CLAIM_IDS.replace("crashes = 0", "crashes > 0")
# claim: the first row of claimable and of suspects, lane by lane; ten seeks each.
NEXT_DUE = """
SELECT min(run_at) FROM (
    {lanes}
)
""".format(
    lanes="\n    UNION ALL ".join(
        f"SELECT min(run_at) AS run_at FROM records "
        f"WHERE state = 'queued' AND crashes {crashes} AND queue = :queue AND priority = {priority}"
        for crashes in ("= 0", "> 0")
        for priority in range(10)
    )
)

# publish (j): published, by its queue. What the broker has forgotten counts as never published.
LOSE = """
UPDATE records SET published_until = NULL
WHERE queue = :queue AND state = 'queued' AND published_until IS NOT NULL AND published_until < :before
"""
# publish: published.
PUBLISHED = """
SELECT count(*), min(published_until) FROM records
WHERE queue = :queue AND state = 'queued' AND published_until IS NOT NULL AND published_until > :now
"""
# publish (j): one seek of claimable (suspects) per lane, past those that have a message: at most a window.
_UNPUBLISHED = "(published_until IS NULL OR published_until <= :now) AND {crashes}"
PUBLISH = _lanes(_UNPUBLISHED.format(crashes="crashes = 0"), then="SET published_until = :until")
PUBLISH_SUSPECT = _lanes(_UNPUBLISHED.format(crashes="crashes > 0"), then="SET published_until = :until")
# publish: one seek of claimable (suspects) per lane.
NEXT_TO_PUBLISH = NEXT_DUE.replace(":queue AND", ":queue AND run_at > :now AND")

# Whatever makes a record terminal deletes in the same statement what is not to be kept
# (test_whatever_ends_a_record_wipes_what_is_not_to_be_kept), and no message about it is under way any more.
_WIPED = "published_until = NULL, " + ", ".join(
    f"{name} = CASE WHEN wipe IS NULL THEN {name} END" for name in ("arguments", "carried")
)


def _wiped_unless(going_on: str) -> str:
    return _WIPED.replace("wipe IS NULL", f"wipe IS NULL OR ({going_on})")


# settle (e), the commonest end, for many at once: primary key.
SUCCEED = f"""
UPDATE records SET state = 'succeeded', reason = NULL, owner = NULL, finished_at = ?, {_WIPED}
FROM json_each(?) AS mine
WHERE records.id = mine.key AND records.claim = mine.value AND records.state = 'running'
"""
# settle (e, f, g): primary key. There is no other attempt where a cancel was asked for meanwhile, or where
# this was the last.
_ANOTHER = """(:state = 'queued' AND NOT cancel_requested
        AND (:failed = 0 OR attempts IS NULL OR failures + 1 < attempts))"""
SETTLE = f"""
UPDATE records SET
    state = CASE WHEN :state <> 'queued' OR {_ANOTHER} THEN :state
                 WHEN cancel_requested THEN 'cancelled' ELSE 'failed' END,
    reason = CASE WHEN :state = 'queued' AND cancel_requested THEN 'Cancelled' ELSE :reason END,
    finished_at = CASE WHEN {_ANOTHER} THEN NULL ELSE :now END,
    run_at = CASE WHEN {_ANOTHER} THEN :now + :delay ELSE run_at END,
    failures = min(failures + :failed, {_MOST}), result = :result, error = coalesce(:error, error),
    progress = CASE WHEN NOT {_ANOTHER} THEN progress END,
    owner = NULL, {_wiped_unless(_ANOTHER)}
WHERE id = :id AND claim = :claim AND state = 'running'
    AND :state IN ('queued', 'succeeded', 'failed', 'cancelled')
RETURNING state
"""
# settle again, after a commit whose outcome was lost: is the row as this settlement would have left it?
SETTLED = """
SELECT 1 FROM records WHERE id = :id AND claim = :claim AND owner IS NULL AND (
    reason IS :reason AND (state = :state OR :state = 'queued' AND state = 'failed')
    OR :state = 'queued' AND state = 'cancelled' AND reason = 'Cancelled')
"""

# What a terminal record lets go on (c, i): primary key of links, then primary key, links_by_after.
ANY_LINK = "SELECT 1 FROM links LIMIT 1"
FREE = (
    "DELETE FROM links WHERE before IN (SELECT value FROM json_each(?)) RETURNING before, after, on_failure"
)
SUCCESSFUL = "SELECT id FROM records WHERE id IN (SELECT value FROM json_each(?)) AND state = 'succeeded'"
QUEUE_FREED = """
UPDATE records SET state = 'queued', run_at = max(run_at, ?)
WHERE id IN (SELECT value FROM json_each(?)) AND state = 'waiting' AND owner IS NULL
    AND NOT EXISTS (SELECT 1 FROM links WHERE links.after = records.id)
"""

# cancel (i, j): primary key.
CANCEL = f"""
UPDATE records SET state = 'cancelled', reason = ?, owner = NULL, finished_at = ?, {_WIPED}
WHERE id IN (SELECT value FROM json_each(?)) AND state IN ('waiting', 'queued')
RETURNING id
"""
# The same for what waits, each with what is to be known of it.
CANCEL_BEHIND = f"""
UPDATE records SET state = 'cancelled', reason = 'PredecessorFailed', error = doomed.value, owner = NULL,
    finished_at = ?, {_WIPED}
FROM json_each(?) AS doomed
WHERE records.id = doomed.key AND records.state = 'waiting'
RETURNING id
"""
ASK_CANCEL = "UPDATE records SET cancel_requested = 1 WHERE id = ? AND state = 'running'"
# cancel (j): primary key of meta. How often it was asked for: a number that the processes look at, so that
# only after a cancel they ask what is to be cancelled.
COUNT_CANCEL = """
INSERT INTO meta VALUES ('cancels', '1') ON CONFLICT (name) DO UPDATE SET value = value + 1
"""
CANCELS = "SELECT hex(value) FROM meta WHERE name = 'cancels'"  # whatever stands there
# progress (j): primary key.
PROGRESS = "UPDATE records SET progress = ? WHERE id = ? AND claim = ? AND state = 'running'"

# beat: owned.
RUNNING_OF = """
SELECT id, claim, cancel_requested, reason FROM records WHERE owner = ? AND state = 'running'
"""

# A number that has no byte in the lock file is no worker's, and below 1 are the bytes of the turns.
NUMBERS = "number BETWEEN 1 AND 1000000000"

# join, leave, rescue: the workers table is small; what is left to one: owned.
JOIN = """
INSERT INTO workers (id, host, pid, durability, started_at) VALUES (?, ?, ?, ?, ?) RETURNING number
"""
JOINED = "SELECT number FROM workers WHERE id = ?"
STOPPING = "UPDATE workers SET stopping = 1 WHERE id = ?"
GO = "DELETE FROM workers WHERE id = ? AND NOT EXISTS (SELECT 1 FROM records WHERE owner = workers.id)"
WORKERS = f"SELECT number, id, host, pid, stopping FROM workers WHERE {NUMBERS}"
BURY = "DELETE FROM workers WHERE number = ?"

# rescue (h): owned. The crash is counted unless the process was stopping; a plain function has no budget.
_AGAIN = "NOT cancel_requested AND (crashes < crash_limit OR (:crashed = 0 AND crash_limit > 0))"
RESCUE_RUNNING = f"""
UPDATE records SET
    state = CASE WHEN cancel_requested THEN 'cancelled' WHEN {_AGAIN} THEN 'queued' ELSE 'failed' END,
    reason = CASE WHEN cancel_requested THEN 'Cancelled' WHEN {_AGAIN} THEN reason ELSE 'WorkerLost' END,
    error = CASE WHEN cancel_requested OR ({_AGAIN}) THEN error ELSE :error END,
    finished_at = CASE WHEN {_AGAIN} THEN NULL ELSE :now END,
    run_at = CASE WHEN {_AGAIN} THEN :now ELSE run_at END,
    progress = CASE WHEN NOT ({_AGAIN}) THEN progress END,
    crashes = min(crashes + :crashed, {_MOST}), owner = NULL, {_wiped_unless(_AGAIN)}
WHERE owner = :owner AND state = 'running'
RETURNING {ALL}
"""
# rescue (b): owned, links_by_after.
RESCUE_WAITING = f"""
UPDATE records SET owner = NULL, run_at = max(run_at, :now),
    state = CASE WHEN EXISTS (SELECT 1 FROM links WHERE links.after = records.id)
            THEN 'waiting' ELSE 'queued' END
WHERE owner = :owner AND state = 'waiting'
RETURNING {ALL}
"""

# prune (l): expiring.
PRUNE = """
DELETE FROM records WHERE id IN (
    SELECT id FROM records
    WHERE finished_at IS NOT NULL AND retention IS NOT NULL AND finished_at + retention <= ?
    LIMIT ?)
"""
# prune --older-than: by hand, a walk along the primary key.
PRUNE_OLD = """
DELETE FROM records WHERE id IN (SELECT id FROM records WHERE finished_at <= ? ORDER BY id LIMIT ?)
"""

# prune: the file's header. One page for each run, whatever the number: Python takes one step of it.
FREE_PAGES = "PRAGMA freelist_count"
PAGES = "PRAGMA page_count"
GIVE_BACK = "PRAGMA incremental_vacuum(1)"

# select: primary key, newest first.
SELECT = f"""
SELECT {ALL} FROM records
WHERE id < coalesce(:before, '~') AND (:state IS NULL OR state = :state) ORDER BY id DESC LIMIT :limit
"""
SELECT_IDS = f"SELECT {ALL} FROM records WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id DESC"
# waits_for: links_by_after, primary key. What was cancelled may have links left to what has not ended.
WAITS_FOR = """
SELECT after, before FROM links WHERE after IN (SELECT value FROM json_each(?))
    AND EXISTS (SELECT 1 FROM records WHERE id = links.after AND state = 'waiting')
ORDER BY after, before
"""
# watch: primary key. A few columns, for it is asked at each commit; who changed is then read whole.
GLANCE = """
SELECT id, state, claim, owner, cancel_requested, run_at, progress FROM records
WHERE id IN (SELECT value FROM json_each(?))
"""

# move: primary key of meta. What this ledger says of a move, from it or into it.
META = "SELECT value FROM meta WHERE name = ?"
SET_META = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
DROP_META = "DELETE FROM meta WHERE name = ?"
# move: the workers table is small; owned. Who else is there, and what is in anybody's hands.
OTHERS = "SELECT id FROM workers WHERE id <> ?"
IN_HAND = "SELECT count(*) FROM records WHERE owner IS NOT NULL"
# move: by hand, a walk along the primary key.
LIVE = "SELECT count(*) FROM records WHERE finished_at IS NULL"
ALL_THERE = "SELECT count(*) FROM records"
TO_MOVE = """
SELECT id, coalesce(length(arguments), 0) + coalesce(length(carried), 0) + coalesce(length(result), 0)
    + coalesce(length(error), 0)
FROM records WHERE id > :after AND (:ended OR finished_at IS NULL) ORDER BY id LIMIT :limit
"""
# move: links_by_after.
LINKS = "SELECT before, after, on_failure FROM links WHERE after IN (SELECT value FROM json_each(?))"
# move: primary key. Which of those that were to be taken in are others, that were here before.
STRANGERS = """
SELECT id FROM records
WHERE id IN (SELECT value FROM json_each(:ids)) AND owner IS NOT :holder AND state <> 'cancelled'
"""
# move (b): owned; links_by_after. What was due keeps its time, and so its place among the others.
HELD = "SELECT id FROM records WHERE owner = ? AND state = 'waiting' LIMIT ?"
LET_GO = """
UPDATE records SET owner = NULL,
    state = CASE WHEN EXISTS (SELECT 1 FROM links WHERE links.after = records.id)
            THEN 'waiting' ELSE 'queued' END
WHERE id IN (SELECT value FROM json_each(?)) AND owner = ? AND state = 'waiting'
"""
# move: primary key. Here it is no more, since it is there.
DISCARD = "DELETE FROM records WHERE id IN (SELECT value FROM json_each(?))"
