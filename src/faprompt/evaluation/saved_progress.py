"""Save an interrupted evaluation in one file, and continue it.

    chunk/<n>/...     counts of the chunk that has begun, by group
    open/<n>/...      counts of the chunks before, of groups that are not complete
    closed/<n>/...    curves and replicates of complete groups
    scores, overlaps, marked  of the pictures so far, NaN where there is none
    digests           (pictures, 2, 32) uint8: SHA-256 of picture and masks, zeros without a file

The rest is JSON in the header. Nothing is pickled, and the file is replaced atomically. A run
continues only if every measured picture and mask still has the same content; times and sizes of
files are not compared.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from faprompt.work import logger

PROGRESS_NAME = "progress.safetensors"
_HEADER = "faprompt_evaluation"
_FORMAT = "3"  # a new one also where CHUNK_PICTURES changes
_DIGEST_BYTES = 32  # of a SHA-256
DAMAGED = (OSError, ValueError, KeyError)  # what `read_progress` raises
_LEAST_REST = 20  # seconds without saving for each second that saving took


@dataclass(frozen=True, slots=True)
class ImageScore:
    """One picture's line of `scores.csv`; `error` is the reason where it has no score."""

    sample: Sample
    score: float | None
    error: str = ""
    overlap: float | None = None  # 0..1, see `map_overlap`; None without a marked pixel
    groups: tuple[str, ...] = ()  # the metric groups it counts in
    marked: float | None = None  # share of the pixels that the mask marks; None without a mask
    digests: tuple[str, str] = ("", "")  # SHA-256 of picture and masks, see `content_digests`


class Progress:
    """File of a run's progress.

    Args:
        path: of the file; None saves nothing.
        identity: what must be equal for a run to continue, as short texts.
        every_s: seconds between two writes, more where writing is slow; 0 writes after every
            batch.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, str], *, every_s: float) -> None:
        self._path = path
        self._identity = with_format(identity)
        self._every_s = every_s
        self._due = time.monotonic() + every_s

    def save_if_due(self, images: Sequence[ImageScore], groups: Groups) -> None:
        """Write the state after these pictures if enough time has passed since the last write."""
        start = time.monotonic()
        if self._path is None or start < self._due:
            return
        self.save(images, groups)
        end = time.monotonic()
        self._due = end + (max(self._every_s, _LEAST_REST * (end - start)) if self._every_s else 0)

    def save(self, images: Sequence[ImageScore], groups: Groups) -> None:
        """Write the state after these pictures."""
        if self._path is not None:
            _save(self._path, self._identity, images, groups)

    def load(self, samples: Sequence[Sample], groups: Groups) -> list[ImageScore]:
        """Restore the groups, and return the pictures of the file; none if it does not fit."""
        if self._path is None or not self._path.is_file():
            return []
        try:
            header, arrays = read_progress(self._path)
            identity, digests = header["identity"], arrays["digests"]
        except DAMAGED as error:
            logger.info(f"{self._path} is damaged ({error}); measuring from the start.")
            return []
        other = [name for name, text in self._identity.items() if identity.get(name) != text]
        measured = zip(samples, digests, strict=False)
        if not other and any(content_digests(sample) != _to_text(row) for sample, row in measured):
            other = ["pictures"]
        if other:
            differing = ", ".join(other)
            logger.info(f"{self._path} is of another run ({differing}); measuring from the start.")
            return []
        names = [groups.names(number) for number in range(len(samples))]
        images = saved_images(samples, names, header, arrays)
        groups.restore(arrays, header["groups"], len(images))
        return images


def run_identity(
    dataset: Dataset, config: EvaluationConfig, *, model: str, environment: Mapping[str, str]
) -> dict[str, str]:
    """Return what a result depends on, by name, hashed where it is long.

    The content of the files is missing here: `Progress` compares it picture by picture.
    """
    return {
        "model": model,
        "pictures": text_digest([_facts(sample, dataset.root) for sample in dataset.samples]),
        "options": text_digest(asdict(config)),
        "environment": text_digest(dict(environment)),
    }


def _facts(sample: Sample, root: Path) -> list[Any]:
    files = [picture_key(path, root) for path in (sample.image_path, *sample.mask_paths)]
    named = [sample.label, sample.class_name, sample.defect_type, sample.has_pixel_label]
    drawn = None if sample.drawn_mask is None else repr(sample.drawn_mask)
    return [files, named, sample.region, drawn]


def picture_key(path: Path, root: Path) -> str:
    """Return a picture's path below its dataset, so that it stays when the dataset moves."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def region_text(sample: Sample) -> str:
    """Return the region of a sample as "x0 y0 x1 y1" in pixels; "" for a whole picture."""
    return " ".join(map(str, sample.region or ()))


def sample_name(sample: Sample, root: Path) -> str:
    """Return the name of a sample for people: its picture, and its region if it has one."""
    name, region = picture_key(sample.image_path, root), region_text(sample)
    return f"{name} [{region}]" if region else name


def with_format(identity: Mapping[str, str]) -> dict[str, str]:
    """Return an identity as `Progress` writes it: with the format of the file."""
    return {"format": _FORMAT, **identity}


def text_digest(value: Any) -> str:
    """Return the SHA-256 of plain values, 64 hex digits."""
    text = json.dumps(value, sort_keys=True)  # escapes names that are not Unicode
    return hashlib.sha256(text.encode()).hexdigest()


def _save(
    path: Path, identity: Mapping[str, str], images: Sequence[ImageScore], groups: Groups
) -> None:
    from safetensors.numpy import save

    arrays, values = groups.state()
    arrays["scores"] = _column(image.score for image in images)
    arrays["overlaps"] = _column(image.overlap for image in images)
    arrays["marked"] = _column(image.marked for image in images)
    empty = bytes(_DIGEST_BYTES)
    digests = b"".join(bytes.fromhex(text) or empty for i in images for text in i.digests)
    arrays["digests"] = np.frombuffer(digests, dtype=np.uint8).reshape(-1, 2, _DIGEST_BYTES)
    errors = {str(i): image.error for i, image in enumerate(images) if image.error}
    header = json.dumps({"identity": identity, "groups": values, "errors": errors})
    ready = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(ready, metadata={_HEADER: header}))


def read_progress(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a saved state: its header and its arrays.

    Raises:
        OSError, ValueError, KeyError: it cannot be read, or is no such file.
    """
    with _opened(path) as file:
        header = json.loads((file.metadata() or {})[_HEADER])
        return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read_identity(path: Path) -> tuple[dict[str, str], int]:
    """Read whose state a file holds and after how many pictures; raises as `read_progress`."""
    with _opened(path) as file:
        identity = json.loads((file.metadata() or {})[_HEADER])["identity"]
        return identity, file.get_slice("scores").get_shape()[0]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def saved_images(
    samples: Sequence[Sample],
    names: Sequence[tuple[str, ...]],
    header: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> list[ImageScore]:
    """Return the pictures of a saved state; `names` are the metric groups of each sample."""
    columns = (map(_or_none, arrays[name].tolist()) for name in ("scores", "overlaps", "marked"))
    rows = enumerate(zip(*columns, arrays["digests"], strict=True))
    errors = header["errors"]
    return [
        ImageScore(
            samples[i], score, errors.get(str(i), ""), overlap, names[i], marked, _to_text(digests)
        )
        for i, (score, overlap, marked, digests) in rows
    ]


def _to_text(row: np.ndarray) -> tuple[str, str]:
    picture, masks = (part.tobytes().hex() if part.any() else "" for part in row)
    return picture, masks


def _column(values: Iterable[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values])


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
