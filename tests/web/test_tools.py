"""Tools that put themselves into FastAPI, before and after `Segundo(app)`, each in a process of its own."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.support import ROOT

ORDERS = ["tools first", "Segundo first"]

SENTRY_AND_OPENTELEMETRY = """
import json, sys
from fastapi import BackgroundTasks, FastAPI
from fastapi.testclient import TestClient
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import sentry_sdk
from segundo import Segundo
from tests.web.tasks import events, note

app = FastAPI()
spans, errors = InMemorySpanExporter(), []
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))

def tools():
    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", before_send=lambda event, hint: errors.append(event))
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)

parts = [tools, lambda: Segundo(app)]
for part in parts if sys.argv[1] == "tools first" else reversed(parts):
    part()

@app.post("/")
def endpoint(tasks: BackgroundTasks):
    recorded, inline = tasks.add_task(note, "recorded"), tasks.add_task(lambda: note("in process"))
    return [recorded.id is not None, inline.id is not None]

@app.get("/fails")
def fails(tasks: BackgroundTasks):
    tasks.add_task(note, "dropped")
    raise ValueError("the endpoint failed")

with TestClient(app, raise_server_exceptions=False) as client:
    handles = client.post("/").json()
    failed = client.get("/fails").status_code
print(json.dumps({
    "handles": handles,
    "failed": failed,
    "events": events(),
    "spans": sorted(span.name for span in spans.get_finished_spans()),
    "errors": [error["exception"]["values"][-1]["value"] for error in errors if "exception" in error],
}))
"""


def run(app: str, order: str) -> Any:
    """Run the app by itself, for the tools change more than an app; what it printed last."""
    ran = subprocess.run(
        [sys.executable, "-c", app, order],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("order", ORDERS)
def test_sentry_and_opentelemetry_see_what_they_see_and_calls_are_recorded(order: str) -> None:
    seen = run(SENTRY_AND_OPENTELEMETRY, order)
    assert seen["handles"] == [True, False]
    assert seen["failed"] == 500
    assert seen["events"] == ["in process", "recorded"]
    assert {"POST /", "GET /fails", "BackgroundTask <lambda>"} <= set(seen["spans"])
    assert seen["errors"] == ["the endpoint failed"]


PUT_IN_AND_TAKEN_OUT = """
import json, sys
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from segundo import BackgroundTasks, Segundo
from tests.web.tasks import events, note

app = FastAPI()

@app.get("/{name}")
async def endpoint(request: Request, name: str):
    tasks = BackgroundTasks(request)  # which only the edge prepares for
    tasks.add_task(note, name)
    return await tasks.recorded(JSONResponse(name))

parts = [lambda: FastAPIInstrumentor.instrument_app(app), lambda: Segundo(app)]
for part in parts if sys.argv[1] == "tools first" else reversed(parts):
    part()
with TestClient(app) as client:
    client.get("/in").raise_for_status()
    FastAPIInstrumentor.uninstrument_app(app)
    client.get("/out").raise_for_status()
print(json.dumps(events()))
"""


@pytest.mark.parametrize("order", ORDERS)
def test_opentelemetry_is_put_in_and_taken_out_again_and_the_edge_stays(order: str) -> None:
    assert run(PUT_IN_AND_TAKEN_OUT, order) == ["in", "out"]
