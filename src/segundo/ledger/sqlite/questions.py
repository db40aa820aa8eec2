"""Every statement that a visitor asks of the file. None writes."""

from segundo.ledger.sqlite.statements import ALL, NUMBERS
from segundo.record import State

NEWEST = "\U0010ffff"  # a walk begins here: it sorts behind every id

# find: primary key; two, to know whether the beginning of an id is enough.
FIND = "SELECT id FROM records WHERE id >= :prefix AND id < :prefix || char(0x10FFFF) ORDER BY id LIMIT 2"

# A walk from the newest to the oldest: primary key.
WALK = """
SELECT id, state, task, queue, reason, timeout, created_at FROM records
WHERE id < :before ORDER BY id DESC LIMIT :limit
"""
# The same over what failed: failed.
WALK_FAILED = """
SELECT id, state, task, queue, reason, timeout, created_at FROM records INDEXED BY failed
WHERE state = 'failed' AND id < :before ORDER BY id DESC LIMIT :limit
"""

# All that are in a state, while they are few: claimable and suspects; owned; owned and links.
IN_STATE = {
    State.QUEUED: """
SELECT id FROM records INDEXED BY claimable WHERE state = 'queued' AND crashes = 0
UNION ALL SELECT id FROM records INDEXED BY suspects WHERE state = 'queued' AND crashes > 0 LIMIT :limit
""",
    State.RUNNING: """
SELECT id FROM records INDEXED BY owned WHERE owner IS NOT NULL AND state = 'running' LIMIT :limit
""",
    State.WAITING: """
SELECT id FROM records INDEXED BY owned WHERE owner IS NOT NULL AND state = 'waiting'
UNION ALL SELECT after FROM links LIMIT :limit
""",
}

# The attempt that has run for the longest: owned.
LONGEST = f"""
SELECT {ALL} FROM records INDEXED BY owned WHERE owner IS NOT NULL AND state = 'running'
ORDER BY started_at LIMIT 1
"""
# Processes: the workers table is small. How much each has in its hands: owned.
WORKERS = f"""
SELECT number, id, host, pid, started_at, stopping, durability,
    (SELECT count(*) FROM records INDEXED BY owned WHERE owner = workers.id)
FROM workers WHERE {NUMBERS} ORDER BY number
"""
# What is in the hands of nobody that the ledger knows: owned. There is no way to it; its presence is a fault.
ORPHANS = """
SELECT count(*) FROM records INDEXED BY owned
WHERE owner IS NOT NULL AND owner NOT IN (SELECT id FROM workers)
"""
SCHEMA = "PRAGMA user_version"
# What was made in the file, by whomever. Indexes that SQLite makes by itself have no text.
MADE = (
    "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
)
CHECK = "PRAGMA quick_check(5)"
# What is said of the ledger as a whole: the table is small.
NOTES = "SELECT name, value FROM meta"
