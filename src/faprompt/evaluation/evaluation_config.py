"""How to measure: the options of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from faprompt.config import Count, Natural, check_fields
from faprompt.data.masks import MaskPolicy
from faprompt.metrics import METRIC_NAMES, ON_REQUEST, AnomalyMetrics

Resolution = Literal["model", "picture"]


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """How to measure. The defaults are the paper's, with exact AUPRO in place of its PRO."""

    batch_size: Count = 8
    resolution: Resolution = "model"  # pixel metrics at the model's size, or the picture's own
    fpr_limit: float = 0.3  # where AUPRO ends
    mask_policy: MaskPolicy = "any-channel"  # which mask pixels are anomalous, see `read_mask`
    by_defect: bool = False  # a group per kind of defect, each against all normals of its class
    replicates: int = 200  # bootstrap replicates of the 95 % intervals; 0 for none
    gallery: Natural = 12  # most pictures per kind of mistake; 0 draws none
    pro_200: bool = False  # also the authors' own PRO, see `metrics/official.py`

    def __post_init__(self) -> None:
        check_fields(self)
        self.build_metrics()  # refuses what does not fit

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The seven metrics, and what was asked for besides."""
        return METRIC_NAMES + (ON_REQUEST if self.pro_200 else ())

    def build_metrics(self) -> AnomalyMetrics:
        """Running metrics of one group of pictures."""
        return AnomalyMetrics(
            fpr_limit=self.fpr_limit, replicates=self.replicates, pro_200=self.pro_200
        )
