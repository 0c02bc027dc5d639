"""Workshop: measure a detector on labelled pictures."""

from faprompt.evaluation.config import EvaluationConfig
from faprompt.evaluation.gallery import Mistake, worst_mistakes, write_gallery
from faprompt.evaluation.progress import PROGRESS_NAME, ImageScore
from faprompt.evaluation.run import Evaluation, evaluate
from faprompt.evaluation.tables import to_json, to_markdown, write_evaluation

__all__ = [
    "PROGRESS_NAME",
    "Evaluation",
    "EvaluationConfig",
    "ImageScore",
    "Mistake",
    "evaluate",
    "to_json",
    "to_markdown",
    "worst_mistakes",
    "write_evaluation",
    "write_gallery",
]
