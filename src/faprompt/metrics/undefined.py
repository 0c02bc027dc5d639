"""The answer of a metric that has no answer: an error that carries the reason."""

from __future__ import annotations

from faprompt.errors import FapromptError


class UndefinedMetricError(FapromptError):
    """The data are sound but the metric has no value on them; the message is the reason.

    The pure functions raise it; `AnomalyMetrics` catches it and lists the reason under
    `undefined`, so that a missing number is never 0 and never NaN.
    """
