"""Metrics of ranking and localisation for scores of any range; numpy and scipy only.

Each metric is a pure function; `AnomalyMetrics` keeps running counts for all of them.
"""

from faprompt.metrics.bootstrap import mean_replicates, paired_interval, percentile_intervals
from faprompt.metrics.ranking import auroc, average_precision, f1_max, f1_max_threshold
from faprompt.metrics.region_overlap import aupro, pro_200
from faprompt.metrics.share_interval import share_interval
from faprompt.metrics.streaming import METRIC_NAMES, ON_REQUEST, AnomalyMetrics, MetricResult
from faprompt.metrics.tally import Curve, UndefinedMetricError

__all__ = [
    "METRIC_NAMES", "ON_REQUEST", "AnomalyMetrics", "Curve", "MetricResult", "UndefinedMetricError",
    "aupro", "auroc", "average_precision", "f1_max", "f1_max_threshold", "mean_replicates",
    "paired_interval", "percentile_intervals", "pro_200", "share_interval",
]  # fmt: skip
