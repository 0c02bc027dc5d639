"""One pass of the image tower for all runs of a sweep, and the account of it.

Trainings share the cache of `faprompt.training`. Here is the same for the tested pictures:
batches that one detector encoded serve all later ones that encode alike.
"""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from faprompt.clip.backbone import Backbone
from faprompt.clip.vision import ImageFeatures
from faprompt.detector import Detector
from faprompt.files import write_atomically
from faprompt.methods.base import Method
from faprompt.reproduce.benchmark_plan import Cell, slug
from faprompt.training.training_steps import TrainingReport


class SharedFeatures:
    """Tokens of tested batches, on disk, equal to the bit to what would be computed.

    Batches are told apart by their pixels and by all that the image pass depends on. One
    dataset is kept at a time; beyond `limit_bytes` of it, batches are encoded each time.
    """

    def __init__(self, folder: Path, *, limit_bytes: float) -> None:
        self.root, self.limit_bytes = folder, limit_bytes
        self.folder = folder  # of the dataset at hand
        self.encoded = self.reused = 0  # pictures
        self.seconds = 0.0  # of encoding
        self.bytes = 0

    def attach(self, cell: Cell, detector: Detector) -> None:
        """Let a cell's detector take its tokens from here, unless its pass is its method's own."""
        self._turn_to(slug(cell.source.entry.key))
        method = detector.method
        if type(method).encode_image is not Method.encode_image:
            return
        if not detector.backbone.has_text:  # feature maps, many times the size of the picture
            return
        encode = method.encode_image
        about = (
            detector.backbone.state_fingerprint(), detector.backbone.precision, method.layers,
            method.value_path, method.class_ln_post, sorted(method.image_options.items()),
        )  # fmt: skip

        def shared(backbone: Backbone, pixels: Tensor) -> ImageFeatures:
            key = hashlib.sha256(repr((about, tuple(pixels.shape))).encode())
            key.update(pixels.detach().cpu().contiguous().numpy().tobytes())
            place = self.folder / f"{key.hexdigest()}.safetensors"
            if place.is_file():
                self.reused += len(pixels)
                return _read(place, pixels.device)
            began = time.perf_counter()
            found: ImageFeatures = encode(backbone, pixels)
            self._wait(pixels)
            self.seconds += time.perf_counter() - began
            self.encoded += len(pixels)
            self._keep(place, found)
            return found

        method.__dict__["encode_image"] = shared  # of this instance only; it is no module

    def clear(self) -> None:
        """Let go of the disk."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.bytes = 0

    def _turn_to(self, dataset: str) -> None:
        """Let go of other datasets; what an interrupted run left of this one serves."""
        self.folder = self.root / dataset
        for other in self.root.glob("*"):
            if other != self.folder:
                shutil.rmtree(other, ignore_errors=True)
        self.bytes = sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))

    def _keep(self, place: Path, found: ImageFeatures) -> None:
        if found.windows or found.views is not None:
            return
        tensors = {f"patch.{layer}": tokens for layer, tokens in found.patch_tokens.items()}
        tensors |= {"class": found.class_token, "grid": torch.tensor(found.grid)}
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        if self.bytes + size > self.limit_bytes:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        part = place.with_suffix(".part")
        save_file({k: v.detach().cpu().clone() for k, v in tensors.items()}, part)
        part.replace(place)
        self.bytes += size

    @staticmethod
    def _wait(pixels: Tensor) -> None:
        if pixels.is_cuda:  # or the seconds would be somebody else's
            torch.cuda.synchronize(pixels.device)


def _read(place: Path, device: torch.device) -> ImageFeatures:
    tensors = load_file(place, device=str(device))
    rows, columns = tensors.pop("grid").tolist()
    class_token = tensors.pop("class")
    layers = sorted(int(name.removeprefix("patch.")) for name in tensors)
    return ImageFeatures(
        class_token, {layer: tensors[f"patch.{layer}"] for layer in layers}, (rows, columns)
    )


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """What one training of a study took. Seconds."""

    run: str
    backbone: str
    trained_on: str
    seed: int
    pictures: int
    encoded: int  # pictures that went through the image tower; 0 where the cache had all
    image_seconds: float
    steps: int
    step_seconds: float


class CostBook:
    """`costs.csv`: a line per training, kept over interruptions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[tuple[str, ...], Mapping[str, Any]] = {}
        if path.is_file():
            for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
                self.rows[_cost_key(row)] = row

    def add(self, cell: Cell, report: TrainingReport) -> None:
        """Write a training down; see `run_benchmark`'s `trained`."""
        assert cell.trained_on is not None and cell.seed is not None
        cost = TrainingCost(
            run=cell.column.method.title,
            backbone=cell.column.backbone,
            trained_on=cell.trained_on.entry.key,
            seed=cell.seed,
            pictures=report.pictures,
            encoded=report.encoded,
            image_seconds=round(report.image_seconds, 3),
            steps=report.steps,
            step_seconds=round(report.step_seconds, 3),
        )
        row = asdict(cost)
        self.rows[_cost_key(row)] = row
        out = io.StringIO()
        names = [each.name for each in fields(TrainingCost)]
        writer = csv.DictWriter(out, names, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(self.rows.values())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, out.getvalue().encode())

    def total(self, name: str) -> float:
        """The sum of one column."""
        return sum(float(row[name]) for row in self.rows.values())


def _cost_key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("run", "backbone", "trained_on", "seed"))
