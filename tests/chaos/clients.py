"""The clients of a storm: those of the soak, who also ask to cancel some of what they asked for."""

import http.client
import json
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Self

from tests.chaos.hosts import Host
from tests.chaos.traffic import RequestPlan
from tests.soak import clients
from tests.soak.history import Answered, Journal


class Clients(clients.Clients):
    """On `host`; `calls`: how many they have sent."""

    def __init__(
        self,
        port: int,
        journal: Journal,
        streams: Iterable[Iterator[RequestPlan]],
        *,
        rate: float,
        host: Host,
    ) -> None:
        anything: Any = streams  # these plans are others
        super().__init__(port, journal, anything, rate=rate)
        self.calls = 0
        self.slowest = 0.0
        self._lock = threading.Lock()
        self._host = host

    def __enter__(self) -> Self:
        with self._host.inside():  # threads are where they were begun
            return super().__enter__()

    def _send(self, connection: http.client.HTTPConnection, plan: Any) -> None:
        sent = plan.sent()
        self._journal.append(sent)
        with self._lock:
            self.calls += len(sent.calls)
        headers = {"content-type": "application/json", "x-request": plan.request}
        connection.request("POST", plan.endpoint, plan.model_dump_json(), headers)
        response = connection.getresponse()
        self._journal.append(Answered(request=plan.request, status=response.status))
        with self._lock:
            self.answers += 1
        body = response.read()
        for id in json.loads(body) if response.status == 200 else ():
            connection.request("POST", f"/cancel/{id}")
            connection.getresponse().read()
