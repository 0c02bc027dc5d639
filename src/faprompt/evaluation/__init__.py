"""Workshop: measure a detector on labelled pictures."""

from faprompt.evaluation.causes import CAUSES, LikelyCause, likely_cause
from faprompt.evaluation.config import EvaluationConfig
from faprompt.evaluation.gallery import Mistake, worst_mistakes, write_gallery
from faprompt.evaluation.progress import PROGRESS_NAME, ImageScore
from faprompt.evaluation.run import Evaluation, evaluate
from faprompt.evaluation.tables import read_replicates, to_json, to_markdown, write_evaluation

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
