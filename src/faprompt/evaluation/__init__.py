"""Workshop: measure a detector on labelled pictures."""

from faprompt.evaluation.run import Evaluation, EvaluationConfig, evaluate
from faprompt.evaluation.tables import to_json, to_markdown, write_evaluation

__all__ = [
    "Evaluation",
    "EvaluationConfig",
    "evaluate",
    "to_json",
    "to_markdown",
    "write_evaluation",
]
