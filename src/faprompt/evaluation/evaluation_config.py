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
    """Hold the options of `evaluate`. Defaults are the paper's, with exact AUPRO for its PRO.

    Args:
        batch_size: pictures scored together.
        resolution: size at which pixels are compared: "model" for the model's input, "picture"
            for the picture's own.
        fpr_limit: false-positive rate at which AUPRO ends, above 0 and at most 1.
        mask_policy: which pixels of a mask are anomalous; see `--mask-policy`.
        by_defect: measure each kind of defect against all normal pictures of its class.
        replicates: bootstrap replicates of the 95 % intervals; 0 for none.
        gallery: most pictures of each kind of mistake; 0 draws none.
        pro_200: also compute the PRO of the authors' code, at 200 thresholds.
        product: of all pictures, for a model calibrated by product; None takes the class.

    Raises:
        ValueError: an option is out of range.
    """

    batch_size: Count = 8
    resolution: Resolution = "model"
    fpr_limit: Annotated[float, Range(above=0, high=1)] = 0.3
    mask_policy: MaskPolicy = "any-channel"
    by_defect: bool = False
    replicates: int = 200
    gallery: Natural = 12
    pro_200: bool = False
    product: str | None = None

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
