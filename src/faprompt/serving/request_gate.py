"""Stand before every request: identity, token, connections, headers, log and metrics.

It is plain ASGI, so that nothing is buffered and errors of any kind pass through one place.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from faprompt.serving.problems import Problem, log_fault
from faprompt.serving.service_limits import ServiceLimits, is_authorized
from faprompt.serving.service_metrics import ServiceMetrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN_ROUTES = ("/", "/healthz", "/readyz")  # without a token
PROBES = ("/healthz", "/readyz", "/metrics")  # answered however many connections are open
ROUTES = (*OPEN_ROUTES, "/metrics", "/openapi.json", "/v1/models", "/v1/predict",
          "/v1/predict/batch", "/v1/report")  # fmt: skip
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
PROBLEM = "faprompt.problem"  # key of the scope: a list with the problem to answer
LINGER_S = 2.0  # for which the rest of a refused body is read, so that the client sees the answer
GONE = 499  # status in log and metrics of a client that left before its answer
_SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
    (b"cache-control", b"no-store"),
]
_NO_CONTENT = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_log = logging.getLogger("faprompt.access")


@dataclass
class OpenConnections:
    """Number of open connections, counted by the server's protocol."""

    count: int = 0


@dataclass
class _Exchange:
    """One request and what has happened to it so far."""

    scope: Message
    receive: Receive
    send: Send
    request_id: str
    headers: dict[bytes, bytes]
    begin: float = field(default_factory=time.perf_counter)
    status: int = 0
    received: int = 0  # bytes of the body
    whole: bool = False  # the body was read to its end
    gone: bool = False

    @property
    def route(self) -> str:
        """The path if it is one of ours; never what a client made up."""
        return self.scope["path"] if self.scope["path"] in ROUTES else "other"

    @property
    def body_left(self) -> bool:
        """Whether a part of the body was not read."""
        announced = self.headers.get(b"content-length", b"0") != b"0"
        return not self.whole and (announced or b"transfer-encoding" in self.headers)

    async def receive_counted(self) -> Message:
        message = await self.receive()
        self.received += len(message.get("body", b""))
        self.whole |= message["type"] == "http.request" and not message.get("more_body")
        self.gone |= message["type"] == "http.disconnect"
        return message

    async def send_marked(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = list(message["headers"])
            has_policy = any(name == _NO_CONTENT[0] for name, _ in given)
            given += [(b"x-request-id", self.request_id.encode()), *_SECURITY]
            given += [] if has_policy else [_NO_CONTENT]
            if self.body_left:
                given.append((b"connection", b"close"))
            message = {**message, "headers": given}
        await self.send(message)

    async def refuse(self, problem: Problem) -> None:
        """Answer with a problem, after a short wait for the rest of the body."""
        if self.body_left and self.headers.get(b"expect", b"").lower() != b"100-continue":
            await self._discard()
        body = problem.body(self.request_id)
        headers = [*problem.headers, (b"content-length", str(len(body)).encode())]
        await self.send_marked(
            {"type": "http.response.start", "status": problem.status, "headers": headers}
        )
        await self.send_marked({"type": "http.response.body", "body": body})

    async def _discard(self) -> None:
        try:
            async with asyncio.timeout(LINGER_S):
                while not (self.whole or self.gone):
                    await self.receive_counted()
        except TimeoutError:
            pass


class RequestGate:
    """ASGI application around the service's own."""

    def __init__(
        self,
        app: App,
        *,
        token: str | None,
        limits: ServiceLimits,
        metrics: ServiceMetrics,
        connections: OpenConnections,
        is_full: Callable[[], bool],
        only_local_names: bool,
    ) -> None:
        """Wrap an application.

        Args:
            app: the service.
            token: wanted from every request but those of `OPEN_ROUTES`; None: from none.
            limits: of the service.
            metrics: get every request.
            connections: the server's count.
            is_full: says that no model takes pictures; they are refused before anything is parsed.
            only_local_names: refuse other Host headers than `LOCAL_HOSTS`, so that no web page
                can reach a service without token by a name that points to this machine.
        """
        self.app, self.token, self.limits, self.metrics = app, token, limits, metrics
        self.connections, self.only_local_names = connections, only_local_names
        self.is_full = is_full

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        exchange = _Exchange(scope, receive, send, request_id, headers)
        with self.metrics.open.track_inprogress():
            await self._answer(exchange)
        self._record(exchange)

    async def _answer(self, exchange: _Exchange) -> None:
        try:
            self._check(exchange)
            problems = exchange.scope[PROBLEM] = []
            await self.app(exchange.scope, exchange.receive_counted, exchange.send_marked)
            if problems:
                raise problems[0]
        except Problem as problem:
            await exchange.refuse(problem)
        except Exception as error:
            if exchange.gone or exchange.status:
                return
            log_fault(f"request {exchange.request_id} failed", error)
            await exchange.refuse(internal_problem())

    def _check(self, exchange: _Exchange) -> None:
        """Refuse a request before anything of its body is read."""
        path, headers = exchange.scope["path"], exchange.headers
        if self.connections.count > self.limits.connections and path not in PROBES:
            raise Problem(
                503, "too-many-connections",
                f"The service keeps at most {self.limits.connections} connections open.",
                retry_after_s=1, close=True,
            )  # fmt: skip
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if self.only_local_names and re.sub(r":\d+$", "", host) not in LOCAL_HOSTS:
            raise Problem(
                421, "unknown-host",
                "Without a token this service answers to localhost and 127.0.0.1 only; start it "
                "with --token-file, or with --no-token and a proxy before it.",
            )  # fmt: skip
        if headers.get(b"sec-fetch-site") == b"cross-site" and path != "/":
            raise Problem(403, "cross-site", "Pages of other sites may not use this service.")
        if path not in OPEN_ROUTES and not is_authorized(headers.get(b"authorization"), self.token):
            raise Problem(
                401, "token",
                "This needs the service's token in the header Authorization: Bearer TOKEN.",
            )  # fmt: skip
        if path.startswith("/v1/predict") and self.is_full():
            raise Problem(503, "queue-full", "Too many pictures wait; ask again.", retry_after_s=2)

    def _record(self, exchange: _Exchange) -> None:
        seconds = time.perf_counter() - exchange.begin
        status, route = exchange.status or GONE, exchange.route
        self.metrics.requests.labels(route, str(status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        self.metrics.bytes.inc(exchange.received)
        _log.info(
            "request %s %s %s %d %d bytes %.0f ms", exchange.request_id,
            _method(exchange.scope["method"]), route, status, exchange.received, 1000 * seconds,
        )  # fmt: skip


def internal_problem() -> Problem:
    """Return the answer on a fault of ours; the reason is in the log only."""
    return Problem(500, "fault", "The service failed on this request; its log says why.")


def _method(method: str) -> str:
    return method if method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE") else "other"
