"""Every statement that the PostgreSQL ledger runs, by name; the comment says which index serves it.

The names, and each one's parameters, are those of the SQLite ledger, for the changes are the same. A list
travels as one JSON text, so that a statement is one text however many rows it is for. Rows that depend on
others are held (`HOLD`) by a statement of its own first: a statement sees what was committed when it began,
so what a lock waited for is seen by the next one only.
"""

from segundo.ledger.transaction import COMMON
from segundo.record import Record

ALL = ", ".join(Record._fields)


def each(parameter: str) -> str:
    """A list that comes as one JSON text."""
    return f"ANY (ARRAY(SELECT json_array_elements_text({parameter}::json)))"


# In whose order everybody takes locks on several rows: primary key.
HOLD = f"SELECT id FROM records WHERE id = {each('%s')} ORDER BY id FOR UPDATE"
# rescue: owned. Before what it is to decide about changes again.
HOLD_OF = f"SELECT id FROM records WHERE owner = {each('%s')} ORDER BY id FOR UPDATE"
# record: who comes second waits, and then finds the first (test_of_two_calls_with_one_key_one_is_live…).
HOLD_KEYS = """
SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || name, 0))
FROM json_array_elements_text(%s::json) AS name ORDER BY name
"""

# record: primary key. Idempotent, so that a batch whose outcome is unknown can be run again.
INSERT = f"""
INSERT INTO records ({ALL}) VALUES ({", ".join(["%s"] * len(Record._fields))})
ON CONFLICT (id) DO NOTHING
"""
# record: the same for many calls, which have no more than these columns: one text, whatever their number.
INSERT_COMMON = f"""
INSERT INTO records ({", ".join(COMMON)})
SELECT {", ".join(COMMON)} FROM json_populate_recordset(NULL::records, %s::json)
ON CONFLICT (id) DO NOTHING
"""
# record: live_keys. It may not be forgotten before this transaction has ended.
LIVE_KEY = """
SELECT id FROM records WHERE task = %s AND key = %s AND finished_at IS NULL AND id <> %s FOR KEY SHARE
"""
# record: primary key. What waits for a duplicate waits for the live record that it is the same as. It may not
# end before this transaction has ended, or else who waits would wait for ever
# (test_a_record_put_behind_one_that_just_ends_never_waits_for_ever).
BEFORE = """
SELECT id, state FROM records
WHERE id = coalesce((SELECT same_as FROM records WHERE id = %(id)s), %(id)s) FOR SHARE
"""
# record: primary key of links.
LINK = "INSERT INTO links (before, after, on_failure) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"

# forget (k): primary key. Only what never ran; what nobody holds was recorded outside a request.
FORGET = f"""
DELETE FROM records WHERE id = {each("%(ids)s")} AND claim = 0
    AND (state = 'waiting' AND owner = %(owner)s OR state = 'cancelled'
         OR NOT %(held)s AND state IN ('waiting', 'queued') AND owner IS NULL)
RETURNING id
"""
# forget: duplicates. What others, who are not forgotten too, were found to be the same as.
PROMISED = """
WITH forgotten (ids) AS (SELECT ARRAY(SELECT json_array_elements_text(%s::json)))
SELECT DISTINCT same_as FROM records, forgotten WHERE same_as = ANY (ids) AND id <> ALL (ids)
"""
# forget: a transaction that was under way when its connection broke has ended before the next one begins (see
# BEGIN), so there is nothing to write over.
FORGOTTEN = "SELECT %s::float8"
# forget: links_by_after.
FORGET_LINKS = f"DELETE FROM links WHERE after = {each('%s')}"

# An owner that is only to be checked: no index serves this. That of all who own is long where many just did,
# and their entries are not yet vacuumed.
_OWNED_BY = "owner IS NOT DISTINCT FROM"
# release (b): primary key; links_by_after.
_FREED = """owner = NULL, run_at = greatest(run_at, {now}::float8),
    state = CASE WHEN EXISTS (SELECT 1 FROM links WHERE links.after = records.id)
            THEN 'waiting' ELSE 'queued' END"""
RELEASE = f"""
UPDATE records SET {_FREED.format(now="%s")}
WHERE id = {each("%s")} AND {_OWNED_BY} %s AND state = 'waiting'
"""

# start (b and d at once): primary key; links_by_after. The owner stays: of its request, then of its attempt.
START = f"""
UPDATE records SET state = 'running', claim = claim + 1, started_at = %(now)s
WHERE id = {each("%(ids)s")} AND {_OWNED_BY} %(owner)s AND state = 'waiting' AND run_at <= %(now)s
    AND NOT EXISTS (SELECT 1 FROM links WHERE links.after = records.id)
"""
# claim: claimable (suspects), one seek for each queue that has something queued. From the index's end, where
# the new ones are: at its beginning lie all that were claimed since the last vacuum.
QUEUES = """
WITH RECURSIVE names (queue) AS (
    (SELECT queue FROM records WHERE state = 'queued' AND crashes = 0
     ORDER BY queue DESC, priority DESC, run_at DESC LIMIT 1)
    UNION ALL
    SELECT (SELECT queue FROM records WHERE state = 'queued' AND crashes = 0 AND queue < names.queue
            ORDER BY queue DESC, priority DESC, run_at DESC LIMIT 1)
    FROM names WHERE names.queue IS NOT NULL
)
SELECT queue FROM names WHERE queue IS NOT NULL
"""
SUSPECT_QUEUES = QUEUES.replace("crashes = 0", "crashes > 0")

_CLAIMED = "SET state = 'running', claim = claim + 1, owner = %(owner)s, started_at = %(now)s"


def _lanes(crashes: str, *, then: str = _CLAIMED) -> str:
    lane = """
    SELECT * FROM (SELECT id FROM records WHERE state = 'queued' AND {crashes} AND queue = %(queue)s
                   AND priority = {priority} AND run_at <= %(now)s ORDER BY run_at, id LIMIT %(limit)s
                   FOR UPDATE SKIP LOCKED) AS lane{priority}"""
    lanes = "\n    UNION ALL".join(
        lane.format(priority=priority, crashes=crashes) for priority in range(9, -1, -1)
    )
    return f"""
WITH taken AS MATERIALIZED (SELECT id FROM ({lanes}) AS lanes LIMIT %(limit)s)
UPDATE records {then}
WHERE id = ANY (ARRAY(SELECT id FROM taken)) AND state = 'queued'
RETURNING {ALL}
"""


# claim (d): one seek of claimable (suspects) per lane of a queue, the most urgent first; LIMIT ends the walk.
# What another is just taking is passed over.
CLAIM = _lanes("crashes = 0")
CLAIM_SUSPECT = _lanes("crashes > 0")
# claim by id (d): primary key, so `crashes` is compared as no partial index has it. Here it is waited for who
# has it: nobody would ask for it a second time.
CLAIM_IDS = f"""
WITH taken AS MATERIALIZED (
    SELECT id FROM records WHERE id = {each("%(ids)s")}
        AND state = 'queued' AND run_at <= %(now)s AND crashes <= 0
        AND (%(queues)s::text IS NULL OR queue = {each("%(queues)s")})
    ORDER BY priority DESC, run_at, id LIMIT %(limit)s FOR UPDATE)
UPDATE records SET state = 'running', claim = claim + 1, owner = %(owner)s, started_at = %(now)s
WHERE id = ANY (ARRAY(SELECT id FROM taken)) AND state = 'queued'
RETURNING {ALL}
"""
CLAIM_SUSPECT_IDS = CLAIM_IDS.replace("crashes <= 0", "crashes > 0")
# claim: the first row of claimable and of suspects, lane by lane; ten seeks each.
NEXT_DUE = """
SELECT min(run_at) FROM (
    {lanes}
) AS lanes
""".format(
    lanes="\n    UNION ALL ".join(
        f"SELECT min(run_at) AS run_at FROM records "
        f"WHERE state = 'queued' AND crashes {crashes} AND queue = %(queue)s AND priority = {priority}"
        for crashes in ("= 0", "> 0")
        for priority in range(10)
    )
)

# publish (j): published, by its queue. What the broker has forgotten counts as never published.
LOSE = """
UPDATE records SET published_until = NULL
WHERE queue = %(queue)s AND state = 'queued' AND published_until IS NOT NULL AND published_until < %(before)s
"""
# publish: two who count at once what is published of a queue would fill its window twice
# (test_two_who_publish_at_once_keep_to_one_window).
HOLD_WINDOW = """
SELECT pg_try_advisory_xact_lock(hashtextextended(current_schema() || ' publishes ' || %s, 0))
"""
# publish: published.
PUBLISHED = """
SELECT count(*), min(published_until) FROM records
WHERE queue = %(queue)s AND state = 'queued' AND published_until IS NOT NULL AND published_until > %(now)s
"""
# publish (j): one seek of claimable (suspects) per lane, past those that have a message: at most a window.
_UNPUBLISHED = "(published_until IS NULL OR published_until <= %(now)s) AND {crashes}"
PUBLISH = _lanes(_UNPUBLISHED.format(crashes="crashes = 0"), then="SET published_until = %(until)s")
PUBLISH_SUSPECT = _lanes(_UNPUBLISHED.format(crashes="crashes > 0"), then="SET published_until = %(until)s")
# publish: one seek of claimable (suspects) per lane.
NEXT_TO_PUBLISH = NEXT_DUE.replace("%(queue)s AND", "%(queue)s AND run_at > %(now)s AND")

# Whatever makes a record terminal deletes in the same statement what is not to be kept
# (test_whatever_ends_a_record_wipes_what_is_not_to_be_kept), and no message about it is under way any more.
WIPED = "published_until = NULL, " + ", ".join(
    f"{name} = CASE WHEN wipe IS NULL THEN {name} END" for name in ("arguments", "carried")
)


def _wiped_unless(going_on: str) -> str:
    return WIPED.replace("wipe IS NULL", f"wipe IS NULL OR ({going_on})")


# settle (e), the commonest end, for many at once: primary key.
SUCCEED = f"""
UPDATE records SET state = 'succeeded', reason = NULL, owner = NULL, finished_at = %s, {WIPED}
FROM json_each_text(%s::json) AS mine
WHERE records.id = mine.key AND records.claim = mine.value::int AND records.state = 'running'
"""
# settle (e, f, g): primary key. There is no other attempt where a cancel was asked for meanwhile, or where
# this was the last.
_ANOTHER = """(%(state)s::text = 'queued' AND NOT cancel_requested
        AND (%(failed)s::int = 0 OR attempts IS NULL OR failures + 1 < attempts))"""
SETTLE = f"""
UPDATE records SET
    state = CASE WHEN %(state)s::text <> 'queued' OR {_ANOTHER} THEN %(state)s::text
                 WHEN cancel_requested THEN 'cancelled' ELSE 'failed' END,
    reason = CASE WHEN %(state)s::text = 'queued' AND cancel_requested THEN 'Cancelled'
             ELSE %(reason)s::text END,
    finished_at = CASE WHEN {_ANOTHER} THEN NULL ELSE %(now)s::float8 END,
    run_at = CASE WHEN {_ANOTHER} THEN %(now)s::float8 + %(delay)s::float8 ELSE run_at END,
    failures = failures + %(failed)s::int, result = %(result)s::text,
    error = coalesce(%(error)s::text, error), progress = CASE WHEN NOT {_ANOTHER} THEN progress END,
    owner = NULL, {_wiped_unless(_ANOTHER)}
WHERE id = %(id)s AND claim = %(claim)s AND state = 'running'
    AND %(state)s::text IN ('queued', 'succeeded', 'failed', 'cancelled')
RETURNING state
"""
# settle again, after a commit whose outcome was lost: is the row as this settlement would have left it?
SETTLED = """
SELECT 1 FROM records WHERE id = %(id)s AND claim = %(claim)s AND owner IS NULL AND (
    reason IS NOT DISTINCT FROM %(reason)s::text
        AND (state = %(state)s::text OR %(state)s::text = 'queued' AND state = 'failed')
    OR %(state)s::text = 'queued' AND state = 'cancelled' AND reason = 'Cancelled')
"""

# What a terminal record lets go on (c, i): primary key of links, then primary key, links_by_after.
FREE = f"DELETE FROM links WHERE before = {each('%s')} RETURNING before, after, on_failure"
SUCCESSFUL = f"SELECT id FROM records WHERE id = {each('%s')} AND state = 'succeeded'"
QUEUE_FREED = f"""
UPDATE records SET state = 'queued', run_at = greatest(run_at, %s::float8)
WHERE id = {each("%s")} AND state = 'waiting' AND owner IS NULL
    AND NOT EXISTS (SELECT 1 FROM links WHERE links.after = records.id)
"""

# cancel (i, j): primary key.
CANCEL = f"""
UPDATE records SET state = 'cancelled', reason = %s, owner = NULL, finished_at = %s, {WIPED}
WHERE id = {each("%s")} AND state IN ('waiting', 'queued')
RETURNING id
"""
# The same for what waits, each with what is to be known of it.
CANCEL_BEHIND = f"""
UPDATE records SET state = 'cancelled', reason = 'PredecessorFailed', error = doomed.value, owner = NULL,
    finished_at = %s, {WIPED}
FROM json_each_text(%s::json) AS doomed
WHERE records.id = doomed.key AND records.state = 'waiting'
RETURNING id
"""
ASK_CANCEL = "UPDATE records SET cancel_requested = true WHERE id = %s AND state = 'running'"
# progress (j): primary key.
PROGRESS = "UPDATE records SET progress = %s WHERE id = %s AND claim = %s AND state = 'running'"

# beat: owned.
RUNNING_OF = """
SELECT id, claim, cancel_requested, reason FROM records WHERE owner = %s AND state = 'running'
"""

# join, leave, rescue: the workers table is small; what is left to one: owned.
_LEASE = "clock_timestamp() + make_interval(secs => %(lease)s)"
JOIN = f"""
INSERT INTO workers (id, host, pid, durability, started_at, lease_until)
VALUES (%(id)s, %(host)s, %(pid)s, %(durability)s, %(now)s, {_LEASE})
ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until RETURNING number
"""
# Others have taken it for dead, and it lives: from here on it can be rescued again. What it had is theirs.
JOIN_AGAIN = f"""
INSERT INTO workers (number, id, host, pid, durability, started_at, lease_until)
VALUES (%(number)s, %(id)s, %(host)s, %(pid)s, %(durability)s, %(now)s, {_LEASE})
"""
STOPPING = "UPDATE workers SET stopping = true WHERE id = %s"
GO = "DELETE FROM workers WHERE id = %s AND NOT EXISTS (SELECT 1 FROM records WHERE owner = workers.id)"
# Whose lease has run out; who renews it, or rescues too, just now is passed over.
DEAD_WORKERS = """
SELECT number, id, host, pid, stopping FROM workers WHERE lease_until < clock_timestamp()
ORDER BY number FOR UPDATE SKIP LOCKED
"""
BURY = "DELETE FROM workers WHERE number = %s"

# rescue (h): owned. The crash is counted unless the process was stopping; a plain function has no budget.
_AGAIN = "NOT cancel_requested AND (crashes < crash_limit OR (%(crashed)s::int = 0 AND crash_limit > 0))"
RESCUE_RUNNING = f"""
UPDATE records SET
    state = CASE WHEN cancel_requested THEN 'cancelled' WHEN {_AGAIN} THEN 'queued' ELSE 'failed' END,
    reason = CASE WHEN cancel_requested THEN 'Cancelled' WHEN {_AGAIN} THEN reason ELSE 'WorkerLost' END,
    error = CASE WHEN cancel_requested OR ({_AGAIN}) THEN error ELSE %(error)s::text END,
    finished_at = CASE WHEN {_AGAIN} THEN NULL ELSE %(now)s::float8 END,
    run_at = CASE WHEN {_AGAIN} THEN %(now)s::float8 ELSE run_at END,
    progress = CASE WHEN NOT ({_AGAIN}) THEN progress END,
    crashes = crashes + %(crashed)s::int, owner = NULL, {_wiped_unless(_AGAIN)}
WHERE owner = %(owner)s AND state = 'running'
RETURNING {ALL}
"""
# rescue (b): owned, links_by_after.
RESCUE_WAITING = f"""
UPDATE records SET {_FREED.format(now="%(now)s")}
WHERE owner = %(owner)s AND state = 'waiting'
RETURNING {ALL}
"""

# prune (l): expiring.
PRUNE = """
DELETE FROM records WHERE id = ANY (ARRAY(
    SELECT id FROM records
    WHERE finished_at IS NOT NULL AND retention IS NOT NULL AND finished_at + retention <= %s
    LIMIT %s FOR UPDATE SKIP LOCKED))
"""
# prune --older-than: by hand, a walk along the primary key.
PRUNE_OLD = """
DELETE FROM records WHERE id = ANY (ARRAY(
    SELECT id FROM records WHERE finished_at <= %s ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED))
"""

# select: primary key, newest first.
SELECT = f"""
SELECT {ALL} FROM records
WHERE id < coalesce(%(before)s, '~') AND (%(state)s::text IS NULL OR state = %(state)s)
ORDER BY id DESC LIMIT %(limit)s
"""
SELECT_IDS = f"SELECT {ALL} FROM records WHERE id = {each('%s')} ORDER BY id DESC"
# waits_for: links_by_after, primary key. What was cancelled may have links left to what has not ended.
WAITS_FOR = f"""
SELECT after, before FROM links WHERE after = {each("%s")}
    AND EXISTS (SELECT 1 FROM records WHERE id = links.after AND state = 'waiting')
ORDER BY after, before
"""
# watch: primary key. A few columns, for it is asked at each commit; who changed is then read whole.
GLANCE = f"""
SELECT id, state, claim, owner, cancel_requested, run_at, progress FROM records WHERE id = {each("%s")}
"""
NOW = "SELECT extract(epoch FROM clock_timestamp())::float8"

# Who enters a ledger, and who shuts it for a move, wait for each other: what a lock waited for is seen by
# the next statement (test_who_enters_while_a_ledger_is_shut_finds_it_shut).
ENTER = "SELECT pg_advisory_xact_lock_shared(hashtextextended(current_schema() || '/gate', 0))"
SHUT = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '/gate', 0))"
# move: primary key of meta. What this ledger says of a move, from it or into it.
META = "SELECT value FROM meta WHERE name = %s"
SET_META = "INSERT INTO meta VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
DROP_META = "DELETE FROM meta WHERE name = %s"
# move: the workers table is small; owned. Who else is there, and what is in anybody's hands.
OTHERS = "SELECT id FROM workers WHERE id <> %s"
IN_HAND = "SELECT count(*) FROM records WHERE owner IS NOT NULL"
# move: by hand, a walk along the primary key.
LIVE = "SELECT count(*) FROM records WHERE finished_at IS NULL"
ALL_THERE = "SELECT count(*) FROM records"
TO_MOVE = """
SELECT id, coalesce(length(arguments), 0) + coalesce(length(carried), 0)
    + coalesce(length(result), 0) + coalesce(length(error), 0)
FROM records WHERE id > %(after)s AND (%(ended)s OR finished_at IS NULL) ORDER BY id LIMIT %(limit)s
"""
# move: links_by_after.
LINKS = f"SELECT before, after, on_failure FROM links WHERE after = {each('%s')}"
# move: every column of each record, in one text.
INSERT_WHOLE = f"""
INSERT INTO records ({ALL}) SELECT {ALL} FROM json_populate_recordset(NULL::records, %s::json)
ON CONFLICT (id) DO NOTHING
"""
# move: primary key. Which of those that were to be taken in are others, that were here before.
STRANGERS = f"""
SELECT id FROM records
WHERE id = {each("%(ids)s")} AND owner IS DISTINCT FROM %(holder)s AND state <> 'cancelled'
"""
# move (b): owned; links_by_after. What was due keeps its time, and so its place among the others.
HELD = "SELECT id FROM records WHERE owner = %s AND state = 'waiting' LIMIT %s"
LET_GO = f"""
UPDATE records SET owner = NULL,
    state = CASE WHEN EXISTS (SELECT 1 FROM links WHERE links.after = records.id)
            THEN 'waiting' ELSE 'queued' END
WHERE id = {each("%s")} AND owner = %s AND state = 'waiting'
"""
# move: primary key. Here it is no more, since it is there.
DISCARD = f"DELETE FROM records WHERE id = {each('%s')}"
