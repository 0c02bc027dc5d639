"""faprompt: zero-shot visual anomaly detection that people can use.

    import faprompt
    detector = faprompt.load_detector("tiny")
    result = detector.predict("part.png")

Names load on first use, so that importing the package wakes neither torch nor open_clip.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from faprompt.detector import Detector
    from faprompt.imaging.read import read_image
    from faprompt.methods.registry import list_methods
    from faprompt.models import build_detector, list_models, load_detector
    from faprompt.records import AnomalyResult, Region, Sample

__version__ = "0.1.0"

_PLACES = {
    "AnomalyResult": "faprompt.records",
    "Detector": "faprompt.detector",
    "Region": "faprompt.records",
    "Sample": "faprompt.records",
    "build_detector": "faprompt.models",
    "list_methods": "faprompt.methods.registry",
    "list_models": "faprompt.models",
    "load_detector": "faprompt.models",
    "read_image": "faprompt.imaging.read",
}

__all__ = [
    "AnomalyResult",
    "Detector",
    "Region",
    "Sample",
    "build_detector",
    "list_methods",
    "list_models",
    "load_detector",
    "read_image",
]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'faprompt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
