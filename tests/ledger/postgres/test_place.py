"""Where a ledger is, as its URL says."""

import sys

import pytest

from segundo.errors import ConfigurationError, LedgerUnusable
from segundo.ledger.postgres import PostgresLedger
from segundo.ledger.postgres.connecting import Place
from segundo.ledger.stores import ledger_at
from segundo.settings import settings


def test_a_url_names_a_database_and_a_schema_in_it() -> None:
    place = Place.at("postgresql://ada@db.example:5433/shop?schema=tasks&sslmode=require")
    assert place.schema == "tasks"
    assert place.url == "postgresql://ada@db.example:5433/shop?sslmode=require"
    assert Place.at("postgresql://db.example/shop").schema == "segundo"


def test_what_is_printed_of_a_url_has_no_password() -> None:
    url = "postgresql://ada:s3cret@db.example/shop?password=s3cret"
    assert "s3cret" not in str(Place.at(url))
    assert "s3cret" not in PostgresLedger(url).name


@pytest.mark.parametrize("schema", ["Shop", "a-b", 'a";drop', "", "9", "x" * 64])
def test_a_schema_whose_name_would_need_quotes_is_refused(schema: str) -> None:
    with pytest.raises(ConfigurationError, match="schema"):
        Place.at(f"postgresql://localhost/shop?schema={schema}")


def test_a_url_may_say_otherwise_about_the_link() -> None:
    parameters = Place.at("postgresql://localhost/shop?connect_timeout=1").parameters()
    assert parameters["connect_timeout"] == "1"
    assert parameters["target_session_attrs"] == "read-write"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_the_setting_takes_a_servers_url_as_it_is(scheme: str) -> None:
    url = f"{scheme}://localhost/shop?schema=tasks"
    found = settings({"ledger": url}, {}).ledger
    assert found == url
    ledger = ledger_at(found, durability="full", record_timeout=1)
    assert isinstance(ledger, PostgresLedger)


def test_without_its_driver_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r'pip install "segundo\[postgres\]"'):
        ledger_at("postgresql://localhost/shop", durability="full", record_timeout=1)


async def test_a_server_that_is_not_there_is_said_when_the_ledger_is_opened() -> None:
    with pytest.raises(LedgerUnusable, match="cannot be opened"):
        await PostgresLedger("postgresql://postgres@127.0.0.1:1/postgres").open()
