"""Compare a run with the calibration that gave its verdicts."""

from faprompt.inspection.score_drift import Drift, ProductDrift, measure_drift

__all__ = ["Drift", "ProductDrift", "measure_drift"]
