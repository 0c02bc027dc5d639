"""An evaluation half done, as one file that the same evaluation goes on from.

    open/<n>/...      counts of the groups that are not complete
    closed/<n>/...    curves and replicates of those that are
    scores, overlaps, marked  of the pictures so far, NaN where there is none
    digests           (pictures, 2, 32) uint8: SHA-256 of picture and masks, zeros without a file

The rest is JSON in the header. Nothing is pickled, and the file is replaced in one move. A run
goes on only if every picture and mask that it has measured still has the same content; the time
and the size of a file decide nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faprompt.data.dataset import Dataset
from faprompt.evaluation.evaluation_config import EvaluationConfig
from faprompt.evaluation.metric_groups import Groups
from faprompt.evaluation.sample_batches import content_digests
from faprompt.files import write_atomically
from faprompt.records import Sample

PROGRESS_NAME = "progress.safetensors"
_HEADER = "faprompt_evaluation"
_FORMAT = "2"
_DIGEST_BYTES = 32  # of a SHA-256
_SHARE = 20  # writing takes at most this part of the time


@dataclass(frozen=True, slots=True)
class ImageScore:
    """One picture's line of `scores.csv`; `error` says why there is no score."""

    sample: Sample
    score: float | None
    error: str = ""
    overlap: float | None = None  # of map and mask, 0..1, see `overlap.py`; None without a defect
    groups: tuple[str, ...] = ()  # the metric groups it counts in
    marked: float | None = None  # share of the pixels that the mask marks; None without a mask
    digests: tuple[str, str] = ("", "")  # SHA-256 of picture and masks, see `content_digests`


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
        if not other and not _same_content(samples, arrays["digests"]):
            other = ["pictures"]
        if other:
            told_other = ", ".join(other)
            return [], f"{self._path} is of another run ({told_other}); measuring from the start."
        images = _images(samples, groups, told, arrays)
        groups.restore(arrays, told["groups"], len(images))
        return images, f"going on after {len(images)} of {len(samples)} pictures"


def run_identity(
    dataset: Dataset, config: EvaluationConfig, *, model: str, environment: Mapping[str, str]
) -> dict[str, str]:
    """Names of what a result depends on, each with a hash or in short.

    The content of the files is not among them: `Progress` compares it picture by picture.
    """
    return {
        "model": model,
        "pictures": _digest([_facts(sample, dataset.root) for sample in dataset.samples]),
        "options": _digest(asdict(config)),
        "environment": _digest(dict(environment)),
    }


def _facts(sample: Sample, root: Path) -> list[Any]:
    files = [picture_key(path, root) for path in (sample.image_path, *sample.mask_paths)]
    named = [sample.label, sample.class_name, sample.defect_type, sample.has_pixel_label]
    drawn = None if sample.drawn_mask is None else repr(sample.drawn_mask)
    return [files, named, sample.region, drawn]


def _same_content(samples: Sequence[Sample], digests: np.ndarray) -> bool:
    """Whether the files of the first samples still have these digests."""
    return all(
        content_digests(sample) == _to_text(row)
        for sample, row in zip(samples, digests, strict=False)
    )


def picture_key(path: Path, root: Path) -> str:
    """A picture's name that stays when its dataset moves."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def region_text(sample: Sample) -> str:
    """Return the region of a sample as "x0 y0 x1 y1" in pixels; "" for a whole picture."""
    return " ".join(map(str, sample.region or ()))


def sample_name(sample: Sample, root: Path) -> str:
    """Return the name of a sample for people: its picture, and its region if it has one."""
    name, region = picture_key(sample.image_path, root), region_text(sample)
    return f"{name} [{region}]" if region else name


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
    arrays["marked"] = np.array([_or_nan(image.marked) for image in images])
    digests = b"".join(_to_bytes(text) for image in images for text in image.digests)
    arrays["digests"] = np.frombuffer(digests, dtype=np.uint8).reshape(-1, 2, _DIGEST_BYTES)
    errors = {str(i): image.error for i, image in enumerate(images) if image.error}
    header = json.dumps({"identity": identity, "groups": told, "errors": errors})
    ready = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(ready, metadata={_HEADER: header}))


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
    columns = (arrays[name].tolist() for name in ("scores", "overlaps", "marked"))
    rows = zip(*columns, arrays["digests"], strict=True)
    return [
        ImageScore(
            samples[i], _or_none(score), told["errors"].get(str(i), ""), _or_none(overlap),
            groups.names(i), _or_none(marked), _to_text(digests),
        )
        for i, (score, overlap, marked, digests) in enumerate(rows)
    ]  # fmt: skip


def _to_bytes(digest: str) -> bytes:
    return bytes.fromhex(digest) or bytes(_DIGEST_BYTES)


def _to_text(row: np.ndarray) -> tuple[str, str]:
    picture, masks = (part.tobytes().hex() if part.any() else "" for part in row)
    return picture, masks


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
