"""`python -m tests.chaos redis --tasks 2000 --seed 7`: one storm, told; exit code 1 if a promise broke."""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from random import SystemRandom

from tests.chaos.broken import WAYS
from tests.chaos.servers import BROKERS
from tests.chaos.storm import BLOWS, Weather
from tests.chaos.trial import storm


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("broker", choices=sorted(BROKERS))
    parser.add_argument("--tasks", type=int, help="calls that are sent at least")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seed", type=int, help="draws the requests, blows and waits; printed")
    parser.add_argument("--clients", type=int)
    parser.add_argument("--rate", type=float, help="requests a second of each client")
    parser.add_argument("--limit", type=float, help="seconds after which no more blows fall")
    parser.add_argument("--drain", type=float, help="seconds that what is left may take")
    parser.add_argument("--blow", dest="blows", action="append", choices=BLOWS)
    parser.add_argument("--broken", choices=sorted(WAYS), help="break the library on purpose")
    parser.add_argument("--folder", type=Path, help="keep the history and the logs here")
    return parser.parse_args()


def main() -> int:
    asked = {name: value for name, value in vars(arguments()).items() if value is not None}
    folder: Path = asked.pop("folder", None) or Path(tempfile.mkdtemp(prefix="segundo-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    if "blows" in asked:
        asked["blows"] = tuple(asked["blows"])
    if "broken" in asked:
        way = WAYS[asked["broken"]]
        asked = {"blows": way.blows, **way.weather, **asked}
    weather = Weather(**{"seed": SystemRandom().randrange(10**6), "tasks": 2000, **asked})
    print(f"{weather}, in {folder}", flush=True)
    verdict = storm(weather, folder)
    print(verdict.told())
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
