"""The model of a detector as pictures see it: its input, its output, and its setup.

All of it is numpy. `TensorDetector` runs such a model with torch, `ExportedDetector` with another
runtime; `PictureDetector` makes results of pictures with either.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from faprompt.calibration import fingerprint_of
from faprompt.detector_setup import DetectorSetup, check_setup
from faprompt.imaging.transform import Transform, shorter_edge_size


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelGeometry:
    """How a model takes pictures, and how its patch maps become maps in pixels."""

    transform: Transform
    sigma_px: float  # by which patch maps are still to be smoothed, in pixels of the model's input
    keeps_aspect: bool = False  # only the shorter edge is resized to the transform's size
    tiled: bool = False  # a picture that is not square is scored as overlapping squares
    stacks_squares: bool = False  # patch tokens are those of several squares


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """What a model is and what runs it, for reports."""

    method: str
    backbone: str
    backbone_fingerprint: str  # SHA-256 of its weights
    runtime: tuple[str, str]  # name and version, such as ("torch", "2.13.0")
    precision: str  # of the image tower's matrices
    device: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredBatch:
    """What a model says of a batch, before maps are smoothed.

    score: (B,) in 0..1. patch_map: (B, rows, columns) in 0..1. prompt_scores: (B, K) in 0..1, on
    request. surprise: (B, N) in 0..1 over `grid` = (rows, columns) of patches, the distance to
    the references (see `ReferenceBank.surprise`), where the detector has any.
    """

    score: np.ndarray
    patch_map: np.ndarray
    grid: tuple[int, int]
    prompt_scores: np.ndarray | None = None
    surprise: np.ndarray | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedPicture:
    """Tokens of one picture: class_token (D,); patch_tokens layer -> (N, D), row-major."""

    class_token: np.ndarray
    patch_tokens: Mapping[int, np.ndarray]
    grid: tuple[int, int]  # (rows, columns)


class PictureModel:
    """What a detector of pictures needs of the model, whatever library runs it.

    Children set the attributes below and write `geometry`, `identity`, `class_name`,
    `decided_by`, `save_pretrained`, `run_model` and `encode_picture`.
    """

    name: str  # in results
    threshold: float | None  # default of the verdict and the regions, 0 to 1
    setup: DetectorSetup  # tiles, mask, references and calibration; see `with_setup`
    description: dict[str, Any]  # further entries of the model folder's config

    @property
    def geometry(self) -> ModelGeometry:
        """How the model takes pictures."""
        raise NotImplementedError

    @property
    def identity(self) -> ModelIdentity:
        """What the model is and what runs it."""
        raise NotImplementedError

    @property
    def class_name(self) -> str | None:
        """The default class of the pictures, for methods with class names."""
        raise NotImplementedError

    @property
    def released_reading(self) -> Transform | None:
        """The transform with which labelled sets are read as public code does, or None."""
        return None

    def decided_by(self) -> dict[str, str]:
        """Return the name and value, or digest, of everything that decides a score."""
        raise NotImplementedError

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that `load_detector` reads."""
        raise NotImplementedError

    def run_model(
        self,
        pixels: np.ndarray,
        *,
        masks: Sequence[np.ndarray | None],
        products: Sequence[str],
        class_names: Sequence[str] | None = None,
        with_prompt_scores: bool = False,
    ) -> ScoredBatch:
        """Score a batch of model input.

        Args:
            pixels: (B, 3, height, width) float32, normalised.
            masks: (H, W) bool of each picture, of any size; True pixels are left out (see
                `kept_rows`). None leaves out nothing.
            products: of each picture, a key of the references if there are any.
            class_names: what each picture shows, or all of them, for methods with class names.
            with_prompt_scores: also return one score per abnormality prompt.

        Raises:
            ConfigError: the references do not fit the method; see the children for others.
        """
        raise NotImplementedError

    def encode_picture(self, pixels: np.ndarray) -> EncodedPicture:
        """Return the tokens of one picture, (3, height, width) float32; raises as `run_model`."""
        raise NotImplementedError

    def __repr__(self) -> str:
        height, width = self.geometry.transform.image_size
        known = "calibrated" if self.setup.calibration is not None else "not calibrated"
        return f"<{type(self).__name__} {self.name!r} at {width}x{height} px, {known}>"

    def fingerprint(self) -> str:
        """Return SHA-256 of `decided_by`."""
        return fingerprint_of(self.decided_by())

    def with_setup(self, **changes: Any) -> Self:
        """Return a detector with the same weights and other settings of `DetectorSetup`.

        Example: `detector.with_setup(tiles="auto", calibration=None)`.

        Raises:
            ConfigError, ValueError: a setting is out of range.
            ModelError: the calibration was made under other settings.
        """
        other = copy.copy(self)
        other._set(replace(self.setup, **changes))
        return other

    def _set(self, setup: DetectorSetup) -> None:
        self.setup = setup
        check_setup(setup, self.decided_by, self.name)

    def model_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Return the size, in pixels, at which the model sees a picture of `image_size`."""
        size = self.geometry.transform.image_size
        return shorter_edge_size(image_size, size[0]) if self.geometry.keeps_aspect else size

    def model_input(self, image: np.ndarray) -> np.ndarray:
        """Prepare a decoded picture, (H, W, 3) uint8: (3, height, width) float32, normalised."""
        size = self.model_size((image.shape[0], image.shape[1]))
        return replace(self.geometry.transform, image_size=size).to_pixels(image)
