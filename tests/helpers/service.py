"""A service that runs in a thread of this process, and a client for it."""

from __future__ import annotations

import http.client
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from faprompt.calibration import Calibration, GoodScores
from tests.helpers import small
from tests.helpers.exported import HandMade


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        """The code of a problem, checked to be a whole one."""
        assert self.headers["content-type"] == "application/problem+json"
        values = self.json
        assert set(values) == {"type", "title", "status", "detail", "request_id"}
        assert values["status"] == self.status and values["detail"]
        assert values["request_id"] == self.headers["x-request-id"]
        return values["type"].removeprefix("urn:faprompt:")


class Gated(HandMade):
    """A detector that scores when it is allowed to, and notes the size of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed, self.begun, self.batches = threading.Event(), threading.Event(), []

    def predict_batch(self, images, **options):
        self.batches.append(len(images))
        self.begun.set()
        assert self.allowed.wait(20)
        return super().predict_batch(images, **options)


def calibrated(**counts: int) -> HandMade:
    """The hand-made detector with made-up good scores, of products if they are named."""
    detector = HandMade()
    spread = {name: np.linspace(0.3, 0.7, n) for name, n in (counts or {"": 120}).items()}
    known = Calibration(
        products={name: GoodScores(scores, scores) for name, scores in spread.items()},
        decided_by=detector.decided_by(),
    )
    return detector.with_setup(calibration=known)


def png(height: int = 40, width: int = 50, *, seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(small.picture(height, width, seed=seed)).save(buffer, "PNG")
    return buffer.getvalue()


class Client:
    """Asks one service."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(
        self, method: str, path: str, body: Any = None, timeout: float = 30, **headers
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any = b"", **headers) -> Answer:
        return self.ask("POST", path, body, **headers)

    def post_json(self, path: str, values: Any, **headers) -> Answer:
        return self.post(path, json.dumps(values), content_type="application/json", **headers)

    def post_form(self, path: str, files: list[tuple[str, bytes]], **fields: str) -> Answer:
        parts = [
            b'--xx\r\nContent-Disposition: form-data; name="image"; filename="%s"\r\n\r\n%s\r\n'
            % (name.encode(), content)
            for name, content in files
        ] + [
            f'--xx\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
            for key, value in fields.items()
        ]
        body = b"".join(parts) + b"--xx--\r\n"
        return self.post(path, body, content_type="multipart/form-data; boundary=xx")


@contextmanager
def running(*detectors, named=None, limits=None, **options) -> Iterator[Client]:
    """Serve detectors on a free port until the block ends; it waits for every answer."""
    from faprompt.serving.server_run import build_server
    from faprompt.serving.service_limits import ServiceLimits

    models = named or {detector.name: detector for detector in detectors}
    server = build_server(models, port=0, limits=ServiceLimits(**(limits or {})), **options)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        for _ in range(1000):
            if server.started:
                break
            time.sleep(0.01)
        yield Client(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()
