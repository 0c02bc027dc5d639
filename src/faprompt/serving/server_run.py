"""Run the service: uvicorn with bounded connections, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from faprompt.errors import ConfigError
from faprompt.imaging.reading_options import ReadingOptions, Window
from faprompt.picture_detector import PictureDetector
from faprompt.serving.model_worker import BatchReport, ModelWorker
from faprompt.serving.problems import Problem
from faprompt.serving.request_gate import OpenConnections, RequestGate
from faprompt.serving.service_app import build_app
from faprompt.serving.service_limits import ServiceLimits, check_exposure, is_local
from faprompt.serving.service_metrics import ServiceMetrics

_HEADER_BYTES = 16 * 1024  # of all headers of a request
_KEEP_ALIVE_S = 15  # that a connection may rest between two requests
_STUCK_S = 20  # that a client may take no byte of its answer
_SPARE = 2  # times the allowed connections are refused in words; more are closed at once
_DRAIN_SPARE_S = 10  # after the time limit, for answers on their way


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 that closes connections whose client is too slow to ask, or to listen."""

    limits: ServiceLimits
    open_connections: OpenConnections

    def connection_made(self, transport: Any) -> None:
        """Count the connection, and expect a request soon."""
        super().connection_made(transport)
        self._slow: Any = None
        self._stuck: Any = None
        self.open_connections.count += 1
        if self.open_connections.count > _SPARE * self.limits.connections:
            transport.abort()
            return
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection no more."""
        self.open_connections.count -= 1
        self._stop(self._slow)
        self._stop(self._stuck)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; headers must be complete within the limit from the first one."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop(self._slow)
            self._slow = None
        elif self._slow is None and not self.transport.is_closing():
            self._expect_request()

    def pause_writing(self) -> None:
        """Give a client some seconds to take its answer."""
        super().pause_writing()
        self._stuck = self.loop.call_later(_STUCK_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on writing."""
        super().resume_writing()
        self._stop(self._stuck)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP request, as all problems are answered."""
        problem = Problem(400, "http", "This is no HTTP request, or its headers are too long.")
        body = problem.body("")
        head = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n"
        head += b"content-type: application/problem+json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(head + body)
        self.transport.close()

    def _expect_request(self) -> None:
        self._slow = self.loop.call_later(self.limits.receive_s, self.transport.abort)

    @staticmethod
    def _stop(timer: Any) -> None:
        if timer is not None:
            timer.cancel()


class ServiceServer(uvicorn.Server):
    """Server that ends with status 0 after it has answered every accepted request."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second Ctrl-C stops at once."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


def build_server(
    detectors: Mapping[str, PictureDetector],
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    token: str | None = None,
    no_token: bool = False,
    limits: ServiceLimits | None = None,
    threshold: float | None = None,
    bit_depth: int | None = None,
    window: Window | None = None,
    on_start: Callable[[], None] = lambda: None,
) -> ServiceServer:
    """Return a server that is ready to `run`.

    Args:
        detectors: by the id that requests name; the first is the default.
        host: address to listen on; another than this machine's own needs a token.
        port: 0 takes a free one.
        token: that requests must carry.
        no_token: serve other machines without a token.
        limits: see `ServiceLimits`.
        threshold: score from which pictures are NG, in place of the models' own.
        bit_depth, window: see `read_image`.
        on_start: called when the service listens.

    Raises:
        ConfigError: the address needs a token, there is no model, or a model needs a folder of
            masks.
    """
    limits = limits or ServiceLimits()
    check_exposure(host, token, no_token=no_token)
    if not detectors:
        raise ConfigError("Name at least one model to serve.")
    reading = ReadingOptions(bit_depth=bit_depth, window=window, max_pixels=limits.max_pixels)
    metrics, connections = ServiceMetrics(), OpenConnections()
    workers = {}
    for name, detector in detectors.items():
        _check_servable(name, detector, reading)
        workers[name] = ModelWorker(
            detector, queue=limits.queue, batch_size=limits.batch_size,
            reading=reading, longest_wait_s=limits.timeout_s / 2, threshold=threshold,
            on_batch=_counter(metrics, name),
        )  # fmt: skip
    gate = RequestGate(
        build_app(workers, limits, metrics),
        token=token,
        limits=limits,
        metrics=metrics,
        connections=connections,
        is_full=lambda: all(worker.is_full for worker in workers.values()),
        only_local_names=token is None and not no_token and is_local(host),
    )
    values = {"limits": limits, "open_connections": connections}
    config = uvicorn.Config(
        gate, host=host, port=port, http=type("Protocol", (BoundedProtocol,), values), ws="none",
        loop="asyncio", lifespan="on", interface="asgi3", log_config=None, access_log=False,
        proxy_headers=False, server_header=False, h11_max_incomplete_event_size=_HEADER_BYTES,
        timeout_keep_alive=min(_KEEP_ALIVE_S, limits.receive_s),
        timeout_graceful_shutdown=limits.timeout_s + limits.receive_s + _DRAIN_SPARE_S,
    )  # fmt: skip
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    return _started(ServiceServer(config), on_start)


def _started(server: ServiceServer, on_start: Callable[[], None]) -> ServiceServer:
    """Have a server call a function when it listens."""
    startup = server.startup

    async def startup_then_tell(sockets: Any = None) -> None:
        await startup(sockets=sockets)
        on_start()

    server.startup = startup_then_tell  # type: ignore[method-assign]
    return server


def _check_servable(name: str, detector: PictureDetector, reading: ReadingOptions) -> None:
    detector.setup.reading(reading)
    if detector.setup.needs_mask_folder:
        raise ConfigError(
            f"{name} was calibrated with a mask for each picture, matched by file name; a service "
            "has no files. Calibrate with one mask for all pictures, or use `faprompt predict`."
        )


def _counter(metrics: ServiceMetrics, name: str) -> Callable[[BatchReport], None]:
    return lambda report: metrics.add_batch(name, report)
