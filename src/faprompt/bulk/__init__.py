"""Score more pictures than one machine should: shards of a run, their merge, several devices."""

from __future__ import annotations

from faprompt.bulk.bulk_scorer import BulkScorer
from faprompt.bulk.ray_engine import ray_rows
from faprompt.bulk.shard_merge import MergeSummary, MergeTable, merge_shards
from faprompt.bulk.shard_plan import ShardPlan, plan_shards, read_plan
from faprompt.bulk.shard_predict import ScoringPlan, ShardScorer, predict_shard
from faprompt.bulk.shard_run import RowSource, ShardSummary, run_shard
from faprompt.bulk.shard_split import WHOLE_RUN, Shard, shard_of

__all__ = [
    "WHOLE_RUN",
    "BulkScorer",
    "MergeSummary",
    "MergeTable",
    "RowSource",
    "ScoringPlan",
    "Shard",
    "ShardPlan",
    "ShardScorer",
    "ShardSummary",
    "merge_shards",
    "plan_shards",
    "predict_shard",
    "ray_rows",
    "read_plan",
    "run_shard",
    "shard_of",
]
