"""The clients of a storm: threads that send one request after another and note what they were answered."""

import http.client
import json
import threading
from collections.abc import Iterable, Iterator
from random import Random
from types import TracebackType
from typing import Self

from tests.soak.history import Answered, Journal
from tests.soak.traffic import RequestPlan
from tests.support import wait_until


class Clients:
    """A context manager: in it each stream of requests is sent, some `rate` a second, through every kill."""

    def __init__(
        self, port: int, journal: Journal, streams: Iterable[Iterator[RequestPlan]], *, rate: float
    ) -> None:
        self.answers = 0  # received so far, by all; read to see that the app serves again
        self._port = port
        self._journal = journal
        self._pace = Random(rate)
        self._rate = rate
        self._enough = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(stream,), daemon=True) for stream in streams
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()

    def wait_for_answers(self, number: int, timeout: float) -> None:
        """Wait until the clients together have received so many answers more."""
        enough = self.answers + number
        wait_until(lambda: self.answers >= enough, timeout)

    def _run(self, stream: Iterator[RequestPlan]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=15)
        for plan in stream:
            if self._enough.wait(self._pace.expovariate(self._rate)) or not self._connect(connection):
                break
            try:
                self._send(connection, plan)
            except (OSError, http.client.HTTPException):  # killed under us
                connection.close()
        connection.close()

    def _connect(self, connection: http.client.HTTPConnection) -> bool:
        """Wait until the app is there; False if it is enough first."""
        while connection.sock is None:
            try:
                connection.connect()
            except OSError:
                if self._enough.wait(0.02):
                    return False
        return True

    def _send(self, connection: http.client.HTTPConnection, plan: RequestPlan) -> None:
        headers = {
            "content-type": "application/json",
            "x-request": plan.request,
            "x-ending": plan.ending,
            "x-plan": plan.model_dump_json(),
        }
        body = plan.model_dump_json() if plan.endpoint != "/invalid" else json.dumps({"number": "none"})
        self._journal.append(plan.sent())
        connection.request("POST", plan.endpoint, body, headers)
        response = connection.getresponse()
        self._journal.append(Answered(request=plan.request, status=response.status))
        self.answers += 1
        response.read()
