"""Zero-shot visual anomaly detection: which pictures are wrong, and where.

    import faprompt
    detector = faprompt.load_detector("small")
    result = detector.predict("part.png")

The names in `__all__` are stable: within a major version none is removed, and none changes its
meaning. What is to go is announced by a warning one minor version ahead. Everything else, the
submodules included, may change at any time. Files that a version writes (model folders,
`results.jsonl`, `metrics.json`) are read by later versions.

Names are imported on first use, so `import faprompt` imports neither torch nor open_clip.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from faprompt import errors
    from faprompt.detector import Detector
    from faprompt.evaluation import Evaluation, EvaluationConfig, evaluate
    from faprompt.exporting import ExportOptions, ExportReport, export
    from faprompt.imaging.image_reading import read_image
    from faprompt.inspection import CalibrateOptions, CalibrationReport, calibrate
    from faprompt.methods.registry import list_methods
    from faprompt.models import build_detector, list_models, load_detector
    from faprompt.prediction import PredictionSummary, PredictOptions, predict_files
    from faprompt.records import Region
    from faprompt.results import AnomalyResult
    from faprompt.training import TrainingReport, TrainOptions, train

__version__ = "0.1.0"

_MODULES = {
    "AnomalyResult": "faprompt.results",
    "CalibrateOptions": "faprompt.inspection",
    "CalibrationReport": "faprompt.inspection",
    "Detector": "faprompt.detector",
    "Evaluation": "faprompt.evaluation",
    "EvaluationConfig": "faprompt.evaluation",
    "ExportOptions": "faprompt.exporting",
    "ExportReport": "faprompt.exporting",
    "PredictOptions": "faprompt.prediction",
    "PredictionSummary": "faprompt.prediction",
    "Region": "faprompt.records",
    "TrainOptions": "faprompt.training",
    "TrainingReport": "faprompt.training",
    "build_detector": "faprompt.models",
    "calibrate": "faprompt.inspection",
    "evaluate": "faprompt.evaluation",
    "export": "faprompt.exporting",
    "list_methods": "faprompt.methods.registry",
    "list_models": "faprompt.models",
    "load_detector": "faprompt.models",
    "predict_files": "faprompt.prediction",
    "read_image": "faprompt.imaging.image_reading",
    "train": "faprompt.training",
}

__all__ = [
    "AnomalyResult",
    "CalibrateOptions",
    "CalibrationReport",
    "Detector",
    "Evaluation",
    "EvaluationConfig",
    "ExportOptions",
    "ExportReport",
    "PredictOptions",
    "PredictionSummary",
    "Region",
    "TrainOptions",
    "TrainingReport",
    "build_detector",
    "calibrate",
    "errors",
    "evaluate",
    "export",
    "list_methods",
    "list_models",
    "load_detector",
    "predict_files",
    "read_image",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        try:
            return getattr(import_module(_MODULES[name]), name)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"faprompt.{name} needs the package {error.name}, which is not installed: install "
                "faprompt with its dependencies. `faprompt.runtime` runs exported models without.",
                name=error.name,
            ) from error
    if name == "errors":
        return import_module("faprompt.errors")
    raise AttributeError(f"module 'faprompt' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names alone, for `dir`, `help` and completion."""
    return sorted({name for name in globals() if name.startswith("__")} | {*__all__})
