"""How well scores rank and maps localise: numpy and scipy only, no range assumed.

A pure function stands under each metric; `AnomalyMetrics` holds the running counts.
"""

from faprompt.metrics.bootstrap import mean_replicates, paired_interval, percentile_intervals
from faprompt.metrics.curves import Curve, pr_curve, pro_curve, roc_curve
from faprompt.metrics.official import pro_200
from faprompt.metrics.ranking import auroc, average_precision, f1_max, f1_max_threshold
from faprompt.metrics.regions import aupro
from faprompt.metrics.result import METRIC_NAMES, ON_REQUEST, MetricResult
from faprompt.metrics.streaming import AnomalyMetrics
from faprompt.metrics.undefined import UndefinedMetricError

__all__ = [
    "METRIC_NAMES",
    "ON_REQUEST",
    "AnomalyMetrics",
    "Curve",
    "MetricResult",
    "UndefinedMetricError",
    "aupro",
    "auroc",
    "average_precision",
    "f1_max",
    "f1_max_threshold",
    "mean_replicates",
    "paired_interval",
    "percentile_intervals",
    "pr_curve",
    "pro_200",
    "pro_curve",
    "roc_curve",
]
