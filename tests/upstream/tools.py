"""Logfire, before and after `Segundo(app)`: run by `make upstream`: it puts a plugin into each pytest."""

import pytest

from tests.web.test_tools import ORDERS, run

LOGFIRE = """
import json, sys
import logfire
from fastapi import BackgroundTasks, FastAPI
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from segundo import Segundo
from tests.web.tasks import events, note

spans = InMemorySpanExporter()
processors = [SimpleSpanProcessor(spans)]
logfire.configure(send_to_logfire=False, console=False, additional_span_processors=processors)
app = FastAPI()
parts = [lambda: logfire.instrument_fastapi(app), lambda: Segundo(app)]
for part in parts if sys.argv[1] == "tools first" else reversed(parts):
    part()

@app.post("/")
def endpoint(tasks: BackgroundTasks):
    return tasks.add_task(note, "recorded").id is not None

with TestClient(app) as client:
    recorded = client.post("/").json()
names = {span.name for span in spans.get_finished_spans()}
print(json.dumps([recorded, events(), "POST /" in names]))
"""


@pytest.mark.parametrize("order", ORDERS)
def test_logfire_sees_requests_and_wraps_the_same_function_and_calls_are_recorded(order: str) -> None:
    assert run(LOGFIRE, order) == [True, ["recorded"], True]
