"""Every statement that a visitor asks of the server. None writes."""

from segundo.ledger.postgres.statements import ALL

NEWEST = None  # a walk begins here

# find: primary key; two, to know whether the beginning of an id is enough.
FIND = "SELECT id FROM records WHERE id >= %(prefix)s AND starts_with(id, %(prefix)s) ORDER BY id LIMIT 2"

# Pages from the newest to the oldest: primary key.
_OLDER = "(%(before)s::text IS NULL OR id < %(before)s)"
RECORDS = f"""
SELECT {ALL} FROM records
WHERE {_OLDER} AND (%(state)s::text IS NULL OR state = %(state)s)
    AND (%(task)s::text IS NULL OR task = %(task)s)
ORDER BY id DESC LIMIT %(limit)s
"""
WALK = f"""
SELECT id, state, task, queue, reason, timeout, created_at FROM records
WHERE {_OLDER} ORDER BY id DESC LIMIT %(limit)s
"""

# The attempt that has run for the longest: owned.
LONGEST = f"""
SELECT {ALL} FROM records WHERE owner IS NOT NULL AND state = 'running' ORDER BY started_at LIMIT 1
"""
# Processes: the workers table is small. How much each has in its hands: owned.
WORKERS = """
SELECT number, id, host, pid, started_at, stopping, durability,
    (SELECT count(*) FROM records WHERE owner = workers.id), lease_until >= clock_timestamp()
FROM workers ORDER BY number
"""
# What is in the hands of nobody that the ledger knows: owned. There is no way to it; its presence is a fault.
ORPHANS = "SELECT count(*) FROM records WHERE owner IS NOT NULL AND owner NOT IN (SELECT id FROM workers)"
SERVER = "SELECT current_setting('server_version')"
# What is said of the ledger as a whole: the table is small.
NOTES = "SELECT name, value FROM meta"
