"""Bulk prediction: files in; `results.jsonl`, maps, overlays, tables and a report out."""

from __future__ import annotations

from faprompt.prediction.artifacts import artifact_folders
from faprompt.prediction.inputs import expand_inputs
from faprompt.prediction.report import write_report
from faprompt.prediction.rows import ResultRow, read_rows
from faprompt.prediction.run import PredictionSummary, predict_files
from faprompt.prediction.scoring import ImageScorer
from faprompt.prediction.table import write_table
from faprompt.regions import find_regions, verdict

__all__ = [
    "ImageScorer",
    "PredictionSummary",
    "ResultRow",
    "artifact_folders",
    "expand_inputs",
    "find_regions",
    "predict_files",
    "read_rows",
    "verdict",
    "write_report",
    "write_table",
]
