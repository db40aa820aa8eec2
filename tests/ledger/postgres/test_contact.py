"""Who may say that another is dead: only who has been in touch with the server for a whole lease."""

import pytest

from segundo.ledger.postgres.contact import Contact

LEASE = 30.0
BEAT = 10.0


class Times:
    """Our clock and the server's, which tests move."""

    def __init__(self) -> None:
        self.here = 1000.0
        self.server = 5_000_000.0
        self.contact = Contact(LEASE, lambda: self.here)
        self.contact.made(self.server)

    def words(self, number: int) -> None:
        for _ in range(number):
            self.pass_by(BEAT)
            self.contact.made(self.server)

    def pass_by(self, seconds: float) -> None:
        self.here += seconds
        self.server += seconds

    @property
    def may(self) -> bool:
        return self.contact.lasts(LEASE)


def test_who_has_just_come_waits_a_whole_lease() -> None:
    times = Times()
    times.words(2)
    assert not times.may
    times.words(1)
    assert times.may


def test_who_lost_the_server_waits_a_whole_lease_again() -> None:
    times = Times()
    times.words(5)
    times.contact.lost()
    times.words(3)
    assert not times.may
    times.words(1)
    assert times.may


@pytest.mark.parametrize("frozen", [LEASE, 2 * LEASE, 1e6])
def test_who_was_frozen_itself_waits_a_whole_lease_again(frozen: float) -> None:
    times = Times()
    times.words(5)
    times.pass_by(frozen)
    times.words(1)
    assert not times.may
    times.words(3)
    assert times.may


def test_a_server_whose_clock_jumps_ahead_makes_nobody_look_dead() -> None:
    """As after the machine that it runs on was asleep: every lease has run out at once."""
    times = Times()
    times.words(5)
    times.server += 3600
    times.words(1)
    assert not times.may
    times.words(3)
    assert times.may


def test_a_server_whose_clock_is_set_back_changes_nothing() -> None:
    times = Times()
    times.words(5)
    times.server -= 3600
    times.words(1)
    assert times.may
