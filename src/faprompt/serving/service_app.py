"""The service's endpoints."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from faprompt import __version__
from faprompt.errors import ConfigError
from faprompt.pages import render_page
from faprompt.serving import openapi_parts as parts
from faprompt.serving.answers import PictureAnswer
from faprompt.serving.model_facts import model_facts
from faprompt.serving.model_worker import ModelWorker, QueueFullError
from faprompt.serving.picture_request import PictureRequest
from faprompt.serving.problems import Problem
from faprompt.serving.request_bodies import (
    Body,
    check_name,
    read_object,
    read_pictures,
    received_body,
)
from faprompt.serving.request_gate import PROBLEM, internal_problem
from faprompt.serving.service_limits import MIB, BodyMemory, ServiceLimits
from faprompt.serving.service_metrics import ServiceMetrics
from faprompt.serving.session_report import session_report

_LONGEST_WAIT_S = 30  # that a full queue tells a client to wait
_JSON = "application/json"


class PredictQuery(BaseModel):
    """Options of a request; in the query, in JSON or in a form, each once."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    product: str | None = None
    name: str = ""
    map: Literal["none", "png", "npy"] = "none"
    overlay: bool = False
    view: bool = False


class ServiceEndpoints:
    """Functions behind the routes, and what they share."""

    def __init__(
        self, workers: Mapping[str, ModelWorker], limits: ServiceLimits, metrics: ServiceMetrics
    ) -> None:
        """Take the models by their ids; the first one is the default."""
        self.workers, self.limits, self.metrics = workers, limits, metrics
        self.memory = BodyMemory(limits.memory_mib * MIB)
        self.default = next(iter(workers))
        self.page, self.page_policy = _page()
        self.facts = [model_facts(name, worker) for name, worker in workers.items()]

    async def predict(self, request: Request, query: Annotated[PredictQuery, Query()]) -> Response:
        """Judge one picture.

        The answer is an object as a line of `results.jsonl`. A picture that cannot be read is
        an error 422 with the reader's sentence.
        """
        async with received_body(request, self.limits, self.memory) as content:
            body = await read_pictures(request, content, most=1)
            options = _joined(request, query, body)
            (answer,) = await self._score(options, body)
        if answer.row.status == "error":
            raise Problem(422, "unreadable-picture", str(answer.row.error))
        return Response(await _encoded(answer), media_type=_JSON)

    async def predict_batch(
        self, request: Request, query: Annotated[PredictQuery, Query()]
    ) -> Response:
        """Judge several pictures.

        All are accepted, or none. A picture that cannot be read is a row with status "error".
        """
        async with received_body(request, self.limits, self.memory) as content:
            body = await read_pictures(request, content, most=self.limits.max_batch)
            answers = await self._score(_joined(request, query, body), body)
        rows = [(await _encoded(answer)).rstrip() for answer in answers]
        return Response(b'{"results": [' + b", ".join(rows) + b"]}\n", media_type=_JSON)

    async def report(self, request: Request) -> Response:
        """Return a session of the inspection page as the report of `predict`."""
        async with received_body(request, self.limits, self.memory) as content:
            values = await run_in_threadpool(read_object, content)
            worker = self._worker(values.get("model"))
            page = await run_in_threadpool(session_report, values, worker)
        headers = {"content-disposition": 'attachment; filename="report.html"'}
        return Response(page, media_type="text/html; charset=utf-8", headers=headers)

    async def models(self) -> Response:
        """List the models with their fingerprints and their calibration in words."""
        facts = [each | {"waiting": self.workers[each["id"]].waiting} for each in self.facts]
        return Response(json.dumps({"models": facts}, ensure_ascii=False), media_type=_JSON)

    async def health(self) -> Response:
        """Say that the process answers."""
        return Response(b'{"status": "ok"}\n', media_type=_JSON)

    async def ready(self) -> Response:
        """Say whether every model takes pictures; 503 if not."""
        resting = [name for name, worker in self.workers.items() if not worker.is_ready]
        if resting:
            raise Problem(503, "not-ready", f"Not ready: {', '.join(resting)}.", retry_after_s=1)
        return Response(b'{"status": "ready"}\n', media_type=_JSON)

    async def scrape(self) -> Response:
        """Return the metrics for Prometheus."""
        text = self.metrics.text(self.workers)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def inspection_page(self) -> Response:
        """Return the inspection page."""
        headers = {"content-security-policy": self.page_policy}
        return Response(self.page, media_type="text/html; charset=utf-8", headers=headers)

    def _worker(self, name: Any) -> ModelWorker:
        found = self.workers.get(str(self.default if name is None else name))
        if found is None:
            known = ", ".join(self.workers)
            raise Problem(422, "unknown-model", f"This service has the models {known}.")
        return found

    async def _score(self, options: PredictQuery, body: Body) -> list[PictureAnswer]:
        """Queue the pictures of a request and wait for their answers."""
        worker = self._worker(options.model)
        try:
            worker.detector.setup.check_product(options.product)
        except ConfigError as error:
            raise Problem(422, "product", str(error)) from error
        requests = [
            PictureRequest(
                content=content, name=name or check_name(options.name), product=options.product,
                map=options.map, overlay=options.overlay, view=options.view,
            )
            for name, content in body.pictures
        ]  # fmt: skip
        try:
            waiting = worker.submit(requests)
        except QueueFullError as error:
            wait = min(_LONGEST_WAIT_S, 1 + int(worker.wait_s))
            raise Problem(
                503, "queue-full", f"{worker.waiting} pictures wait for this model; ask again.",
                retry_after_s=wait,
            ) from error  # fmt: skip
        answers = await self._answers(waiting)
        for answer in answers:
            self.metrics.add_row(options.model or self.default, answer.row)
        return answers

    async def _answers(self, waiting: list[Future[PictureAnswer]]) -> list[PictureAnswer]:
        together = asyncio.gather(*map(asyncio.wrap_future, waiting))
        try:
            return list(await asyncio.wait_for(together, self.limits.timeout_s))
        except TimeoutError as error:
            detail = f"No answer within {self.limits.timeout_s} s; the service is overloaded."
            raise Problem(504, "timeout", detail) from error
        except Exception as error:  # its traceback is in the log
            raise internal_problem() from error


def build_app(
    workers: Mapping[str, ModelWorker], limits: ServiceLimits, metrics: ServiceMetrics
) -> FastAPI:
    """Return the application; it starts the workers, and lets them finish at its end."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for worker in workers.values():
            worker.start()
        yield
        for worker in workers.values():
            await run_in_threadpool(worker.stop)

    ends = ServiceEndpoints(workers, limits, metrics)
    app = FastAPI(
        title="faprompt", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan,
        description="Visual anomaly detection: which pictures are wrong, and where.",
        responses=parts.PROBLEMS, redirect_slashes=False,
    )  # fmt: skip
    post, get = app.post, app.get
    post("/v1/predict", responses=parts.ROW, openapi_extra=parts.ONE_PICTURE)(ends.predict)
    post("/v1/predict/batch", responses=parts.ROWS, openapi_extra=parts.PICTURES)(
        ends.predict_batch
    )
    post("/v1/report", responses=parts.REPORT, openapi_extra=parts.SESSION)(ends.report)
    get("/v1/models", responses=parts.MODELS)(ends.models)
    get("/healthz")(ends.health)
    get("/readyz")(ends.ready)
    get("/metrics", responses=parts.TEXT)(ends.scrape)
    get("/", include_in_schema=False)(ends.inspection_page)
    for kind in (Problem, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _leave_to_gate)
    return app


async def _encoded(answer: PictureAnswer) -> bytes:
    return await run_in_threadpool(answer.to_json) if answer.pictures else answer.to_json()


def _joined(request: Request, query: PredictQuery, body: Body) -> PredictQuery:
    """Join the options of query and body."""
    twice = sorted(set(request.query_params) & set(body.options))
    if twice:
        raise Problem(422, "options", f"{', '.join(twice)} came in the query and in the body.")
    if not body.options:
        return query
    try:
        return PredictQuery.model_validate(dict(request.query_params) | body.options)
    except ValidationError as error:
        raise _options_problem(error.errors()) from error


def _options_problem(errors: Any) -> Problem:
    """Name each option that is unknown or wrong, without repeating its value."""
    faults = [f"{'.'.join(map(str, e['loc'])) or 'options'}: {e['msg']}" for e in list(errors)[:5]]
    return Problem(422, "options", f"{'; '.join(faults)}."[:500])


async def _leave_to_gate(request: Request, error: Exception) -> Response:
    """Note a problem for the gate, which answers all of them, and answer nothing here."""
    problem = _as_problem(error)
    if problem is not None:
        request.scope[PROBLEM].append(problem)
    return _Nothing()


class _Nothing(Response):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send nothing."""


def _as_problem(error: Exception) -> Problem | None:
    """Return the problem that an error is; None for a fault of ours, which is raised on."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return _options_problem(error.errors())
    if isinstance(error, HTTPException):
        said = {404: "There is no such page.", 405: "This page takes other methods."}
        detail = said.get(error.status_code, str(error.detail))
        return Problem(error.status_code, f"http-{error.status_code}", detail)
    return None


def _page() -> tuple[bytes, str]:
    """Return the inspection page, and a policy that runs its own script and loads nothing."""
    page = render_page("inspection_page.html", title="Inspection", version=__version__)
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    allowed = " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests)
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src 'self' data: blob:; media-src blob:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    return page.encode(), policy
