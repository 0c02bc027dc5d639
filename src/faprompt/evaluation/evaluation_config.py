"""Options of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from faprompt.config import Count, Natural, Range, check_fields
from faprompt.data.masks import MaskPolicy
from faprompt.metrics import METRIC_NAMES, ON_REQUEST, AnomalyMetrics

Resolution = Literal["model", "picture"]


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """Options of an evaluation. The defaults are the paper's, with exact AUPRO for its PRO."""

    batch_size: Count = 8
    resolution: Resolution = "model"  # size of pixel metrics: the model's input, or the picture
    fpr_limit: Annotated[float, Range(above=0, high=1)] = 0.3  # false-positive rate, ends AUPRO
    mask_policy: MaskPolicy = "any-channel"  # which mask pixels are anomalous, see `read_mask`
    by_defect: bool = False  # a group per kind of defect, each against all normals of its class
    replicates: int = 200  # bootstrap replicates of the 95 % intervals; 0 for none
    gallery: Natural = 12  # most pictures per kind of mistake; 0 draws none
    pro_200: bool = False  # also the authors' own PRO, see `metrics/official.py`
    product: str | None = None  # of all pictures, for a model calibrated by product; None: by class

    def __post_init__(self) -> None:
        check_fields(self)
        self.build_metrics()  # refuses a number of replicates that is too small

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The seven metrics, and those computed on request."""
        return METRIC_NAMES + (ON_REQUEST if self.pro_200 else ())

    def build_metrics(self) -> AnomalyMetrics:
        """Return empty running metrics for one group of pictures."""
        return AnomalyMetrics(
            fpr_limit=self.fpr_limit, replicates=self.replicates, pro_200=self.pro_200
        )
