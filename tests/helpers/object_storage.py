"""A real S3 server on the loopback address, whose answers can be made to fail."""

from __future__ import annotations

import io
import random
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

BUCKET = "parts"
_REFUSALS = {
    "slow_down": ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
    "denied": ("403 Forbidden", "AccessDenied", "Access Denied"),
}


@dataclass
class Faults:
    """WSGI middleware: a share of the requests fails, drawn for each request.

    `slow_down` is answered with 503 and `denied` with 403, `cut` loses its connection in the
    middle of the body, `lost` is done and then loses its connection without an answer, `slow`
    takes 0.2 s. A URL whose path has `stalled` gets half a body and then nothing.
    """

    app: object
    shares: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    stalled: str = ""
    requests: Counter = field(default_factory=Counter)  # by method
    injected: Counter = field(default_factory=Counter)  # by kind

    def __post_init__(self) -> None:
        self._draw, self._lock = random.Random(self.seed), threading.Lock()

    def set(self, **shares: float) -> None:
        """Replace the shares, and count from 0."""
        with self._lock:
            self.shares, self.stalled = shares, ""
            self.requests, self.injected = Counter(), Counter()
            self._draw = random.Random(self.seed)

    def __call__(self, environ, start_response) -> Iterable[bytes]:
        fault = self._choose(environ)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if fault in _REFUSALS:
            status, code, text = _REFUSALS[fault]
            told = f"<Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()
            start_response(status, [("Content-Length", str(len(told)))])
            return [b"" if environ["REQUEST_METHOD"] == "HEAD" else told]
        if fault == "slow":
            time.sleep(0.2)
        environ["wsgi.input"] = io.BytesIO(body)
        answer = self.app(environ, start_response)
        if fault == "lost" or (fault == "cut" and environ["REQUEST_METHOD"] != "GET"):
            list(answer)
            return self._hang_up(environ, b"")
        content = b"".join(answer) if fault or self.stalled else answer
        if fault == "cut":
            return self._hang_up(environ, content[: len(content) // 2])
        if self.stalled and self.stalled in environ["PATH_INFO"]:
            return self._stall(content)
        return content if not isinstance(content, bytes) else [content]

    def _choose(self, environ) -> str | None:
        with self._lock:
            self.requests[environ["REQUEST_METHOD"]] += 1
            point = self._draw.random()
            for kind, share in self.shares.items():
                if point < share:
                    self.injected[kind] += 1
                    return kind
                point -= share
        return None

    @staticmethod
    def _hang_up(environ, part: bytes) -> Iterator[bytes]:
        yield part
        connection = environ["werkzeug.socket"]
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _stall(content: bytes) -> Iterator[bytes]:
        yield content[: len(content) // 2]
        time.sleep(3)


@contextmanager
def object_storage() -> Iterator[Faults]:
    """Run the server with an empty bucket; the environment names it to every client."""
    pytest.importorskip("s3fs")
    server_of_moto = pytest.importorskip("moto.server")
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    assert server_of_moto

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept, as by a real storage

        def log(self, *_, **__) -> None:
            pass

    faults = Faults(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, faults, threaded=True, request_handler=Quiet)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("NO_PROXY", "127.0.0.1")
        for name in ("AWS_PROFILE", "AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"):
            patch.delenv(name, raising=False)
        clear_clients()
        forget = f"http://127.0.0.1:{server.server_port}/moto-api/reset"  # of earlier servers here
        urllib.request.urlopen(forget, data=b"").close()
        make_bucket(BUCKET)
        faults.set()
        try:
            yield faults
        finally:
            clear_clients()
            server.shutdown()
            thread.join()


def without_faults(server: Faults, patch: pytest.MonkeyPatch, folder: str) -> Faults:
    """Return the server calm, with a folder for one test; only `repeat` repeats, at once."""
    import s3fs

    from faprompt import storage_requests

    server.set()
    server.folder = f"s3://{BUCKET}/{folder}"
    patch.setattr(storage_requests, "WAITS_S", (0.01,) * 20)
    patch.setattr(s3fs.S3FileSystem, "retries", 1)
    return server


def clear_clients() -> None:
    """Forget the clients that s3fs keeps: they know the address of an earlier server."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


def make_bucket(name: str) -> None:
    """Make a bucket."""
    from faprompt.storage_requests import find_file_system

    find_file_system(f"s3://{name}/x")[0].mkdir(name)
