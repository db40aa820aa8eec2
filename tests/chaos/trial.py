"""One storm from its begin to its verdict."""

from dataclasses import replace
from pathlib import Path

from tests.chaos.blows import strike_all
from tests.chaos.storm import STOP, Storm, Weather
from tests.chaos.verdict import verdict_of
from tests.soak.history import History
from tests.soak.verdict import Verdict


def storm(weather: Weather, folder: Path) -> Verdict:
    """Run one storm in an empty folder, which then holds its history and logs."""
    with Storm(weather, folder) as running:
        with running.clients() as clients:
            strike_all(running, clients)
            running.send_the_rest(clients)
        running.settle()
        rows = running.rows()
        running.stop_without_a_broker()
    verdict = verdict_of(History.read(running.history), rows, (*weather.blows, STOP))
    return replace(verdict, figures={**verdict.figures, "workers that ended unasked": running.unasked})
