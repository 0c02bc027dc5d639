"""An evaluation half done, as one file that the same evaluation goes on from.

    open/<n>/...      counts of the groups that are not complete
    closed/<n>/...    curves and replicates of those that are
    scores, overlaps  of the pictures so far, NaN where there is none

The rest is JSON in the header. Nothing is pickled, and the file is replaced in one move.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faprompt.data.base import Dataset
from faprompt.evaluation.config import EvaluationConfig
from faprompt.evaluation.groups import Groups
from faprompt.records import Sample

PROGRESS_NAME = "progress.safetensors"
_HEADER = "faprompt_evaluation"
_FORMAT = "1"
_SHARE = 20  # writing takes at most this part of the time


@dataclass(frozen=True, slots=True)
class ImageScore:
    """One picture's line of `scores.csv`; `error` says why there is no score."""

    sample: Sample
    score: float | None
    error: str = ""
    overlap: float | None = None  # of map and mask, 0..1, see `overlap.py`; None without a defect
    groups: tuple[str, ...] = ()  # the metric groups it counts in


class Progress:
    """Saves a run now and then, and finds it again.

    Args:
        path: of the file; None keeps nothing.
        identity: what has to be the same for a run to go on, in short texts.
        every_s: seconds between two savings, more where writing is slow; 0 saves after
            every batch.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, str], *, every_s: float) -> None:
        self._path = path
        self._identity = {"format": _FORMAT, **identity}
        self._every_s = every_s
        self._due = time.monotonic() + every_s

    def save_if_due(self, images: Sequence[ImageScore], groups: Groups) -> None:
        """Write the state after these pictures, if the last time is long enough ago."""
        start = time.monotonic()
        if self._path is None or start < self._due:
            return
        _save(self._path, self._identity, images, groups)
        end = time.monotonic()
        self._due = end + (max(self._every_s, _SHARE * (end - start)) if self._every_s else 0)

    def load(self, samples: Sequence[Sample], groups: Groups) -> tuple[list[ImageScore], str]:
        """Go on where a file left off: its pictures, and a line on what was found, if anything."""
        if self._path is None or not self._path.is_file():
            return [], ""
        try:
            identity, told, arrays = _load(self._path)
        except (OSError, ValueError, KeyError) as error:
            return [], f"{self._path} is damaged ({error}); measuring from the start."
        other = [name for name, text in self._identity.items() if identity.get(name) != text]
        if other:
            told_other = ", ".join(other)
            return [], f"{self._path} is of another run ({told_other}); measuring from the start."
        images = _images(samples, groups, told, arrays)
        groups.restore(arrays, told["groups"], len(images))
        return images, f"going on after {len(images)} of {len(samples)} pictures"


def run_identity(
    dataset: Dataset, config: EvaluationConfig, *, model: str, environment: Mapping[str, str]
) -> dict[str, str]:
    """Names of what a result depends on, each with a hash or in short."""
    return {
        "model": model,
        "pictures": _digest([_facts(sample, dataset.root) for sample in dataset.samples]),
        "options": _digest(asdict(config)),
        "environment": _digest(dict(environment)),
    }


def _facts(sample: Sample, root: Path) -> list[Any]:
    files = [_file_facts(path, root) for path in (sample.image_path, *sample.mask_paths)]
    named = [sample.label, sample.class_name, sample.defect_type, sample.has_pixel_label]
    return [files, named, sample.region]


def _file_facts(path: Path, root: Path) -> list[Any]:
    try:
        found = path.stat()
    except OSError:
        return [picture_key(path, root)]
    return [picture_key(path, root), found.st_size, found.st_mtime_ns]


def picture_key(path: Path, root: Path) -> str:
    """A picture's name that stays when its dataset moves."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)  # escapes what is no Unicode
    return hashlib.sha256(text.encode()).hexdigest()


def _save(
    path: Path, identity: Mapping[str, str], images: Sequence[ImageScore], groups: Groups
) -> None:
    from safetensors.numpy import save

    arrays, told = groups.state()
    arrays["scores"] = np.array([_or_nan(image.score) for image in images])
    arrays["overlaps"] = np.array([_or_nan(image.overlap) for image in images])
    errors = {str(i): image.error for i, image in enumerate(images) if image.error}
    header = json.dumps({"identity": identity, "groups": told, "errors": errors})
    ready = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(save(ready, metadata={_HEADER: header}))
    os.replace(part, path)


def _load(path: Path) -> tuple[dict[str, str], dict[str, Any], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as file:
            told = json.loads((file.metadata() or {})[_HEADER])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    return told["identity"], told, arrays


def _images(
    samples: Sequence[Sample], groups: Groups, told: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> list[ImageScore]:  # fmt: skip
    pairs = zip(arrays["scores"].tolist(), arrays["overlaps"].tolist(), strict=True)
    return [
        ImageScore(
            samples[i], _or_none(score), told["errors"].get(str(i), ""), _or_none(overlap),
            groups.names(i),
        )
        for i, (score, overlap) in enumerate(pairs)
    ]  # fmt: skip


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
