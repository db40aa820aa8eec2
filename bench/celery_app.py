"""The app and workers of the benchmarks with a broker: one task, through Segundo or by `.delay()`.

`BENCH_SIDE` says which; broker, Celery's settings and pools are the same.
"""

from __future__ import annotations

import os
from pathlib import Path

from celery import signals
from fastapi import BackgroundTasks, FastAPI

from bench.counting import ADDRESS, Counter
from bench.lag import lifespan, take_lags
from segundo import Segundo, task
from segundo.executors.celery.apps import make_app
from segundo.executors.celery.host import Round

OURS = os.environ.get("BENCH_SIDE") == "segundo"


counter = Counter(Path(os.environ.get("BENCH_COUNTS", ".")))


app = FastAPI(lifespan=lifespan)


def noop(email: str) -> None:
    counter.add()


if OURS:
    celery = Segundo(app).celery
    ours = task(noop)
else:
    celery = make_app(os.environ["SEGUNDO_BROKER"])  # Segundo's settings of workers, for both
    if celery.conf.broker_url.startswith("amqp"):
        celery.conf.broker_transport_options = {"confirm_publish": True}
    once_more = Round()
    signals.worker_init.connect(lambda sender, **_: once_more.begin(sender), weak=False)

    def bare(email: str) -> None:
        """Without what a worker of Segundo does after each record, a solo one over RabbitMQ stalls."""
        noop(email)
        once_more.once_more()

    theirs = celery.task(bare, name="noop")


if OURS:

    @app.get("/async")
    async def async_call(tasks: BackgroundTasks) -> dict[str, bool]:
        tasks.add_task(ours, ADDRESS)
        return {"ok": True}

    @app.get("/def")
    def def_call(tasks: BackgroundTasks) -> dict[str, bool]:
        tasks.add_task(ours, ADDRESS)
        return {"ok": True}

else:

    @app.get("/async")
    async def async_call() -> dict[str, bool]:
        theirs.delay(ADDRESS)
        return {"ok": True}

    @app.get("/def")
    def def_call() -> dict[str, bool]:
        theirs.delay(ADDRESS)
        return {"ok": True}


@app.get("/executed")
async def ready() -> dict[str, int]:
    """What the harness asks of every app: here it only says that it serves."""
    return {"executed": 0}


app.get("/lags")(take_lags)  # not by a router: FastAPI looks through each at every request
