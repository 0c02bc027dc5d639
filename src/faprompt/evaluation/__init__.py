"""Measure a detector on labelled pictures."""

from faprompt.evaluation.causes import CAUSES, LikelyCause, likely_cause
from faprompt.evaluation.evaluation_config import EvaluationConfig
from faprompt.evaluation.evaluation_run import Evaluation, evaluate
from faprompt.evaluation.evaluation_shards import (
    SHARDS_FOLDER,
    EvaluationShard,
    ShardResult,
    evaluate_shard,
)
from faprompt.evaluation.gallery import Mistake, worst_mistakes, write_gallery
from faprompt.evaluation.merged_evaluation import holds_evaluation, merge_evaluation
from faprompt.evaluation.metric_files import read_replicates, to_json, to_markdown, write_evaluation
from faprompt.evaluation.saved_progress import PROGRESS_NAME, ImageScore

__all__ = [
    "CAUSES",
    "PROGRESS_NAME",
    "SHARDS_FOLDER",
    "Evaluation",
    "EvaluationConfig",
    "EvaluationShard",
    "ImageScore",
    "LikelyCause",
    "Mistake",
    "ShardResult",
    "evaluate",
    "evaluate_shard",
    "holds_evaluation",
    "likely_cause",
    "merge_evaluation",
    "read_replicates",
    "to_json",
    "to_markdown",
    "worst_mistakes",
    "write_evaluation",
    "write_gallery",
]
