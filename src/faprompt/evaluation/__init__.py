"""Measure a detector on labelled pictures."""

from faprompt.evaluation.causes import CAUSES, LikelyCause, likely_cause
from faprompt.evaluation.evaluation_config import EvaluationConfig
from faprompt.evaluation.evaluation_run import Evaluation, evaluate
from faprompt.evaluation.gallery import Mistake, worst_mistakes, write_gallery
from faprompt.evaluation.metric_files import read_replicates, to_json, to_markdown, write_evaluation
from faprompt.evaluation.saved_progress import PROGRESS_NAME, ImageScore

__all__ = [
    "CAUSES",
    "PROGRESS_NAME",
    "Evaluation",
    "EvaluationConfig",
    "ImageScore",
    "LikelyCause",
    "Mistake",
    "evaluate",
    "likely_cause",
    "read_replicates",
    "to_json",
    "to_markdown",
    "worst_mistakes",
    "write_evaluation",
    "write_gallery",
]
