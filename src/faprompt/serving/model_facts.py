"""What the service says of each model."""

from __future__ import annotations

from typing import Any

from faprompt.calibration import false_alarm_bound
from faprompt.picture_detector import PictureDetector
from faprompt.prediction.html_report import verdict_rules
from faprompt.serving.model_worker import ModelWorker


def model_facts(name: str, worker: ModelWorker) -> dict[str, Any]:
    """Return a model's identity, its thresholds by product, and its rules in words.

    The fingerprint digests all weights, so this is called once.
    """
    detector, threshold = worker.detector, worker.threshold
    calibration = detector.setup.calibration
    judge = calibration if threshold is None and calibration is not None else None
    fixed = detector.threshold if threshold is None and judge is None else threshold
    identity = detector.identity
    return {
        "id": name,
        "name": detector.name,
        "method": identity.method,
        "backbone": identity.backbone,
        "runtime": " ".join(identity.runtime),
        "precision": identity.precision,
        "device": identity.device,
        "fingerprint": detector.fingerprint(),
        "calibrated": calibration is not None,
        "products": sorted(calibration.products) if _has_products(detector) and calibration else [],
        "target_fpr": judge.target_fpr if judge else None,
        "review_fpr": judge.review_fpr if judge else None,
        "thresholds": _thresholds(detector, fixed, by_rate=judge is not None),
        "rules": verdict_rules(fixed, judge, _bound(detector), calibration),
    }


def _has_products(detector: PictureDetector) -> bool:
    calibration = detector.setup.calibration
    return calibration is not None and calibration.has_products


def _thresholds(
    detector: PictureDetector, fixed: float | None, *, by_rate: bool
) -> list[dict[str, Any]]:
    calibration = detector.setup.calibration
    if calibration is None or not by_rate:
        return [{"product": None, "threshold": fixed, "review_threshold": None}]
    limits = {name: calibration.limits(name) for name in sorted(calibration.products)}
    return [
        {
            "product": name or None,
            "threshold": each.threshold,
            "review_threshold": each.review_threshold,
        }
        for name, each in limits.items()
    ]


def _bound(detector: PictureDetector) -> float | None:
    """Return the upper bound of the false-alarm rate (95 %), the worst of all products."""
    calibration = detector.setup.calibration
    if calibration is None:
        return None
    return max(
        false_alarm_bound(len(good), calibration.target_fpr)
        for good in calibration.products.values()
    )
