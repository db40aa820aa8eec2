"""`python -m tests.soak --kills 30 --workers 4 --seed 7`: one storm, told; exit code 1 if a promise broke."""

import argparse
import sys
import tempfile
from pathlib import Path
from random import SystemRandom

from tests.soak.broken import WAYS
from tests.soak.storm import Weather, storm


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--cuts", type=int, help="attempts that kills must cut off; until then it kills on")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--beside", type=int, help="`segundo worker` processes beside the server")
    parser.add_argument("--seed", type=int, help="draws the requests, kills and waits; printed")
    parser.add_argument("--clients", type=int)
    parser.add_argument("--rate", type=float, help="requests a second of each client")
    parser.add_argument("--deploys", type=float, help="how likely a stop in good order is before a kill")
    parser.add_argument("--broken", choices=sorted(WAYS), help="break the library on purpose")
    parser.add_argument("--folder", type=Path, help="keep the history, the ledger and the log here")
    return parser.parse_args()


def main() -> int:
    asked = {name: value for name, value in vars(arguments()).items() if value is not None}
    folder: Path = asked.pop("folder", None) or Path(tempfile.mkdtemp(prefix="segundo-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    way = WAYS[asked["broken"]].weather if "broken" in asked else {}
    weather = Weather(**{"seed": SystemRandom().randrange(10**6), "kills": 6, **way, **asked})
    print(f"seed {weather.seed}, {weather.workers} worker(s), {weather.kills} kills, in {folder}", flush=True)
    verdict = storm(weather, folder)
    print(verdict.told())
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
