"""Calibrate a detector on good pictures, compare a run with its calibration, and precisions."""

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
from faprompt.inspection.precision_change import PrecisionChange, compare_precisions
from faprompt.inspection.rehearsal import Rehearsal, RehearsalOptions, rehearse
from faprompt.inspection.rehearsal_run import hold_out, rehearse_files
from faprompt.inspection.score_drift import Drift, ProductDrift, measure_drift

__all__ = [
    "CalibrateOptions",
    "CalibrationReport",
    "Drift",
    "FalseAlarmReport",
    "PrecisionChange",
    "ProductDrift",
    "ProductReport",
    "Rehearsal",
    "RehearsalOptions",
    "add_false_alarms",
    "calibrate",
    "change_rates",
    "compare_precisions",
    "hold_out",
    "measure_drift",
    "rehearse",
    "rehearse_files",
    "undo_false_alarms",
]
