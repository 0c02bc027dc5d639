"""Collect the facts that `faprompt doctor` prints: versions, device, speed, missing extras."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import time
from typing import Any

from faprompt.errors import FapromptError

EXTRAS = {
    "baselines": ("anomalib", "PatchCore, RD4AD, BLIP and FiLo's grounding"),
    "figures": ("matplotlib", "loss curves, contact sheets and figures of studies"),
    "parquet": ("pyarrow", "predict --table parquet"),
    "serve": ("fastapi", "serve"),
    "dicom": ("pydicom", "DICOM files"),
    "tiff": ("tifffile", "TIFF files Pillow cannot read"),
    "tensorboard": ("tensorboard", "loss curves in TensorBoard"),
}
LIBRARIES = ("torch", "torchvision", "open_clip_torch", "numpy", "scipy", "pillow")


def diagnose() -> dict[str, dict[str, Any]]:
    """Return the sections of the report, each as name -> value, as plain data."""
    return {
        "versions": _versions(),
        "device": _device(),
        "speed": _speed(),
        "extras": _extras(),
    }


def compare_on(pictures: list[str], model: str | None) -> dict[str, str]:
    """Return what each precision of a model saves and changes on pictures, in words."""
    from faprompt.inspection import compare_precisions
    from faprompt.models import DEFAULT_MODEL, load_detector, require_torch
    from faprompt.prediction.input_paths import expand_inputs

    detector = require_torch(load_detector(model or DEFAULT_MODEL))
    return {
        change.precision: str(change)
        for change in compare_precisions(detector, expand_inputs(pictures))
    }


def _versions() -> dict[str, str]:
    import faprompt

    found = {"faprompt": faprompt.__version__, "python": platform.python_version()}
    return found | {name: importlib.metadata.version(name) for name in LIBRARIES}


def _device() -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {"cpu cores": os.cpu_count(), "torch threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_device_name()
    else:
        found["cuda"] = "none"
    found["mps"] = "yes" if torch.backends.mps.is_available() else "none"
    return found


def _speed(repeats: int = 5) -> dict[str, str]:
    """Return the median time of the default model on one random picture."""
    import numpy as np

    from faprompt.models import DEFAULT_MODEL, load_detector

    what = f"{DEFAULT_MODEL}, one 518x518"

    try:
        detector = load_detector(DEFAULT_MODEL)
    except FapromptError as error:
        return {what: f"not measured: {error}"}
    picture = np.random.default_rng(0).integers(0, 256, (518, 518, 3), dtype=np.uint8)
    detector.predict(picture)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        detector.predict(picture)
        seconds.append(time.perf_counter() - started)
    return {what: f"{1000 * sorted(seconds)[repeats // 2]:.0f} ms"}


def _extras() -> dict[str, str]:
    return {
        extra: "installed"
        if importlib.util.find_spec(module)
        else f"missing; pip install 'faprompt[{extra}]' for {purpose}"
        for extra, (module, purpose) in EXTRAS.items()
    }
