"""The simulation that docs/scale.md draws its plan from: it must give back what a station alone can do."""

import pytest

from bench.scale import DEPLOYMENTS, STATIONS, Station, scaled, simulate


@pytest.mark.parametrize("station", STATIONS, ids=lambda station: station.name)
def test_a_station_alone_does_what_its_measured_times_allow_and_no_more(station: Station) -> None:
    assert simulate([station], 10 * station.limit).rate == pytest.approx(station.limit, rel=0.01)
    assert simulate([station], station.limit / 2).rate == pytest.approx(station.limit / 2, rel=0.01)


def test_the_narrowest_station_sets_the_rate_and_records_pile_up_before_it() -> None:
    flow = simulate(STATIONS, 1000)
    narrowest = min(STATIONS, key=lambda station: station.limit)
    assert flow.rate == pytest.approx(narrowest.limit, rel=0.02)
    assert max(flow.waiting, key=lambda name: flow.waiting[name]) == narrowest.name
    assert flow.busy[narrowest.name] == pytest.approx(1.0, rel=0.02)


def test_nothing_is_lost_on_the_way() -> None:
    flow = simulate(STATIONS, 1000, seconds=10)
    assert flow.rate * 10 + sum(flow.waiting.values()) == pytest.approx(10_000)


def test_small_batches_cost_the_fixed_part_more_often() -> None:
    few, many = (Station("ledger", 0.001, 0.0001, batch) for batch in (1, 100))
    assert many.limit > 8 * few.limit


def test_more_servers_let_more_through_until_the_next_station_is_the_narrow_one() -> None:
    rates = [simulate(scaled(workers=count), 10_000).rate for count in (1, 2, 4, 8, 16)]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(min(station.limit for station in scaled(workers=16)), rel=0.02)


def test_the_plan_carries_ten_thousand_a_second() -> None:
    flow = simulate(list(DEPLOYMENTS.values())[-1], 10_000)
    assert flow.rate == pytest.approx(10_000, rel=0.01)
    assert flow.behind < 1
