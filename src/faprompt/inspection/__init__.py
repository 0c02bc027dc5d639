"""Calibrate a detector on good pictures, and compare a run with its calibration."""

from faprompt.inspection.calibration_changes import (
    FalseAlarmReport,
    add_false_alarms,
    change_rates,
    undo_false_alarms,
)
from faprompt.inspection.calibration_run import (
    CalibrateOptions,
    CalibrationReport,
    ProductReport,
    calibrate,
)
from faprompt.inspection.score_drift import Drift, ProductDrift, measure_drift

__all__ = [
    "CalibrateOptions",
    "CalibrationReport",
    "Drift",
    "FalseAlarmReport",
    "ProductDrift",
    "ProductReport",
    "add_false_alarms",
    "calibrate",
    "change_rates",
    "measure_drift",
    "undo_false_alarms",
]
