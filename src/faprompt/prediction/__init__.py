"""Score many files: `results.jsonl`, maps, overlays, tables and a report."""

from __future__ import annotations

from faprompt.prediction.bulk_run import PredictionSummary, PredictOptions, predict_files
from faprompt.prediction.html_report import write_report
from faprompt.prediction.input_paths import expand_inputs, list_inputs
from faprompt.prediction.picture_scoring import ImageScorer
from faprompt.prediction.result_pictures import artifact_folders
from faprompt.prediction.result_rows import ResultRow, read_rows
from faprompt.prediction.result_tables import write_table

__all__ = [
    "ImageScorer",
    "PredictOptions",
    "PredictionSummary",
    "ResultRow",
    "artifact_folders",
    "expand_inputs",
    "list_inputs",
    "predict_files",
    "read_rows",
    "write_report",
    "write_table",
]
