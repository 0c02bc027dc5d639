"""Count what the service does, for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from faprompt.prediction.result_rows import ResultRow
from faprompt.serving.model_worker import BatchReport, ModelWorker

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SHARES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class ServiceMetrics:
    """All metrics of one service, in a registry of its own."""

    def __init__(self) -> None:
        """Create the metrics."""
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter(
            "faprompt_requests", "Requests by route and status.", ["route", "status"], **own
        )
        self.seconds = Histogram(
            "faprompt_request_seconds", "From the headers to the end of the answer.",
            ["route"], buckets=_SECONDS, **own,
        )  # fmt: skip
        self.bytes = Counter("faprompt_request_bytes", "Bytes of request bodies.", **own)
        self.open = Gauge("faprompt_open_requests", "Requests not answered yet.", **own)
        self.pictures = Counter(
            "faprompt_pictures", "Pictures by verdict: OK, REVIEW, NG, none, or error.",
            ["model", "product", "verdict"], **own,
        )  # fmt: skip
        self.scores = Histogram(
            "faprompt_score", "Scores of pictures.", ["model", "product"], buckets=_SHARES, **own
        )
        self.p_values = Histogram(
            "faprompt_p_value",
            "p-values of pictures; evenly spread over 0 to 1 while good parts are as calibrated.",
            ["model", "product"], buckets=_SHARES, **own,
        )  # fmt: skip
        self.batches = Histogram(
            "faprompt_batch_pictures", "Pictures in one pass of a model.", ["model"],
            buckets=(1, 2, 4, 8, 16, 32), **own,
        )  # fmt: skip
        self.batch_seconds = Histogram(
            "faprompt_batch_seconds", "Decoding and scoring of one pass.", ["model"],
            buckets=_SECONDS, **own,
        )  # fmt: skip
        self.waiting = Gauge(
            "faprompt_waiting_pictures", "Pictures that wait for a model.", ["model"], **own
        )

    def add_batch(self, model: str, report: BatchReport) -> None:
        """Count one pass of a model."""
        self.batches.labels(model).observe(report.pictures)
        self.batch_seconds.labels(model).observe(report.seconds)

    def add_row(self, model: str, row: ResultRow) -> None:
        """Count one picture."""
        names = (model, row.product or "")
        verdict = "error" if row.status == "error" else row.verdict or "none"
        self.pictures.labels(*names, verdict).inc()
        if row.score is not None:
            self.scores.labels(*names).observe(row.score)
        if row.p_value is not None:
            self.p_values.labels(*names).observe(row.p_value)

    def text(self, workers: Mapping[str, ModelWorker]) -> bytes:
        """Return all metrics in the format of Prometheus."""
        for name, worker in workers.items():
            self.waiting.labels(name).set(worker.waiting)
        return generate_latest(self.registry)
