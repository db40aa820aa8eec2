"""An exchange: outcomes for the next records to run, in one message to the server instead of five.

It is what a Celery slot asks for between two tasks, and it is waited for. All statements of the transaction,
COMMIT too, are sent at once; so nothing can be decided between them. What needs a decision is left as it was,
for a transaction of the ordinary kind: an end that others wait for, a claim that is no longer held, and all
claims of a process that was taken for dead.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from segundo.ledger.changes import Change
from segundo.ledger.claims import Claim
from segundo.ledger.postgres.connecting import Connection
from segundo.ledger.postgres.statements import ALL, WIPED, each
from segundo.ledger.postgres.workers import Workers, answers_of, as_array
from segundo.ledger.settling import Settle
from segundo.ledger.transaction import ours

# Prepared once in a session: so the server plans neither again.
# First all that the other depends on is held, in the order in which everybody does: who has put a call behind
# one of these records meanwhile has committed, and is seen (test_an_exchange_sees_what_was_just_put_behind…).
# Primary keys of workers and records. For the lock, and who is still there: see BEGIN in workers.py.
HOLD = f"""
PREPARE exchange_hold (bigint, bigint[], json) AS
SELECT pg_advisory_xact_lock($1), extract(epoch FROM clock_timestamp())::float8,
    ARRAY(SELECT number FROM workers WHERE number = ANY (ARRAY(SELECT unnest($2))) FOR KEY SHARE),
    ARRAY(SELECT id FROM records WHERE id = {each("$3")} ORDER BY id FOR UPDATE)
"""
# settle (e), claim by id (d): primary keys, so `crashes` is compared as no partial index has it.
NOW = "coalesce($5, extract(epoch FROM clock_timestamp()))"
EXCHANGE = f"""
PREPARE exchange (json, json, json, text, float8) AS
WITH settled AS (
    UPDATE records SET state = 'succeeded', reason = NULL, owner = NULL, result = $2 ->> id,
        finished_at = {NOW}, {WIPED}
    WHERE id = ANY (ARRAY(SELECT json_object_keys($1))) AND claim = ($1 ->> id)::int AND state = 'running'
        AND NOT EXISTS (SELECT 1 FROM links WHERE links.before = records.id)
    RETURNING id, claim
), claimed AS (
    UPDATE records SET state = 'running', claim = claim + 1, owner = $4, started_at = {NOW}
    WHERE id = {each("$3")} AND state = 'queued' AND crashes <= 0 AND run_at <= {NOW}
        AND EXISTS (SELECT 1 FROM workers WHERE workers.id = $4)
    RETURNING {ALL}
)
SELECT (SELECT json_object_agg(id, claim) FROM settled), claimed.*
FROM (VALUES (1)) AS once LEFT JOIN claimed ON true
"""
WHOLE = """
BEGIN; EXECUTE exchange_hold ({lock}, '{numbers}', {held});
EXECUTE exchange ({ends}, {results}, {wanted}, {owner}, {now}); COMMIT
"""


@dataclass(frozen=True, eq=False)
class Exchange:
    """`ends`: of attempts that succeeded. `claims`: of records that messages name, by one owner."""

    ends: Sequence[Settle]
    claims: Sequence[Claim]

    @classmethod
    def of(cls, changes: Sequence[Change[Any]]) -> "Exchange | None":
        """None if anything else is among these changes."""
        fit = [change for change in changes if not change.in_full]
        ends = [change for change in fit if isinstance(change, Settle) and change.is_of_a_success()]
        claims = [change for change in fit if isinstance(change, Claim)]
        owner = claims[0].owner if claims else ""
        alike = all(claim.is_of_a_message(owner) for claim in claims)
        return cls(ends, claims) if changes and alike and len(ends) + len(claims) == len(changes) else None

    @property
    def owner(self) -> str:
        """Who claims; nobody, if there are only ends."""
        return self.claims[0].owner if self.claims else ""

    @staticmethod
    def prepare(connection: Connection) -> None:
        """Once in each session."""
        connection.execute(f"{HOLD};{EXCHANGE}".encode())

    def make(self, connection: Connection, workers: Workers, now: float | None) -> "Made":
        """Send it, and wait for the answer. `now`: a test's clock; None: the server's."""
        numbers = workers.numbers
        wanted = [id for claim in self.claims for id in claim.ids or ()]
        ends = [change.settlements[0] for change in self.ends]
        given = {
            "held": json.dumps(sorted({*wanted, *(end.id for end in ends)})),
            "ends": json.dumps({end.id: end.claim for end in ends}),
            "results": json.dumps({end.id: end.result for end in ends if end.result is not None}),
            "wanted": json.dumps(wanted),
            "owner": self.owner,
            "now": now,
        }
        literals = {name: sql.Literal(value).as_string(connection) for name, value in given.items()}
        whole = WHOLE.format(lock=workers.lock, numbers=as_array(numbers), **literals)
        held, exchanged = answers_of(connection.execute(whole.encode()))
        _, server_now, there, _ = held[0]
        return Made(self, server_now, len(there) == len(numbers), exchanged)


@dataclass(frozen=True, eq=False)
class Made:
    """What came of one. `now`: the server's. `all_there`: nobody of this process was taken for dead."""

    exchange: Exchange
    now: float
    all_there: bool
    rows: Sequence[tuple[Any, ...]]

    def results(self) -> Mapping[Change[Any], Any]:
        """Of each change that is made; the others are as if they had not been posted yet."""
        settled: dict[str, int] = self.rows[0][0] or {}
        done: dict[Change[Any], Any] = {
            change: [True]
            for change in self.exchange.ends
            for end in change.settlements
            if settled.get(end.id) == end.claim
        }
        if self.all_there:
            claimed = {
                record.id: record for record in ours(row[1:] for row in self.rows if row[1] is not None)
            }
            for claim in self.exchange.claims:  # the second who asks for a record does not get it
                done[claim] = [claimed.pop(id) for id in claim.ids or () if id in claimed]
        return done
