"""How the ledger's sessions on the server are made: where it is, and the settings that the promises need."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from segundo.errors import ConfigurationError

Connection = psycopg.Connection[tuple[Any, ...]]
Connect = Callable[[], Connection]

SCHEMA = "segundo"  # unless the URL says `?schema=other`
LONGEST_PAUSE = 10  # seconds that a session may hold locks and do nothing: its process is frozen, or cut off
LONGEST_LOCK = 5  # seconds that a statement waits for a lock

# A dead link is found out within some ten seconds, and never waited for longer; the URL may say otherwise.
LINK: Mapping[str, object] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "target_session_attrs": "read-write",
    "application_name": "segundo",
}


class Place(NamedTuple):
    """Where a ledger is: a database, as psycopg takes it, and a schema in it."""

    url: str
    schema: str

    @classmethod
    def at(cls, url: str) -> "Place":
        """Raises ConfigurationError for a name of a schema that would need to be quoted."""
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
        schema = dict(query).get("schema", SCHEMA)
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema):
            raise ConfigurationError(
                f"ledger: the schema {schema!r} should be lower-case letters, digits and underscores"
            )
        rest = [(name, value) for name, value in query if name != "schema"]
        return cls(urlunsplit(parts._replace(query=urlencode(rest, quote_via=quote))), schema)

    def __str__(self) -> str:
        """Without the password, as it may be printed."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")
        user = host[0].partition(":")[0]
        netloc = f"{user}@{host[2]}" if user else host[2]
        return urlunsplit(parts._replace(netloc=netloc, query=f"schema={self.schema}"))

    def connect(self, *, synchronous: bool = True) -> Connection:
        """A session whose every commit is on the server's disk when it returns, if it is `synchronous`."""
        connection = psycopg.connect(**self.parameters(), autocommit=True)
        try:
            self.set_up(connection, synchronous=synchronous)
        except BaseException:
            connection.close()
            raise
        return connection

    def parameters(self) -> dict[str, Any]:
        given = conninfo_to_dict(self.url)
        return {**LINK, **{name: value for name, value in given.items() if value is not None}}

    def set_up(self, connection: Connection, *, synchronous: bool = True) -> None:
        """What the server, the database or the role may have set otherwise."""
        connection.execute(
            sql.SQL(
                "SET search_path = {schema}; SET synchronous_commit = {synchronous};"
                "SET idle_in_transaction_session_timeout = {pause}; SET lock_timeout = {lock};"
                "SET default_transaction_isolation = 'read committed'; SET statement_timeout = 0;"
                # The plan of a statement is kept: one that scans the table was good while that was empty.
                "SET enable_seqscan = off;"
                "SET client_min_messages = 'warning'"
            ).format(
                schema=sql.Identifier(self.schema),
                synchronous=sql.Literal("on" if synchronous else "off"),
                pause=sql.Literal(f"{LONGEST_PAUSE}s"),
                lock=sql.Literal(f"{LONGEST_LOCK}s"),
            )
        )
