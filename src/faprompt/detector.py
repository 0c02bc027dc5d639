"""A detector: backbone, method and transform together, with two interfaces.

    forward(pixels)   the tensor interface: a normalised batch in, scores and maps out, gradients
                      allowed. Training, evaluation, export and serving use it.
    predict(image)    reads and resizes a picture, calls the same code without gradients, and
                      returns the map in the picture's own pixels.

No state is kept between calls, so one detector may serve many threads.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from faprompt.clip.backbone import Backbone
from faprompt.clip.vision import ImageFeatures
from faprompt.config import check_whole_number, to_mapping
from faprompt.errors import ConfigError, ImageReadError, ModelError
from faprompt.imaging.image_reading import MAX_PIXELS, ReadImage, read_image
from faprompt.imaging.picture_views import Box, join_maps, square_tiles
from faprompt.imaging.transform import Transform, shorter_edge_size
from faprompt.methods.base import Method, MethodOutput, MethodParts, Names
from faprompt.model_folder import upload_model, write_model
from faprompt.records import AnomalyResult
from faprompt.regions import check_threshold, marked_regions, verdict
from faprompt.scoring import render_map

OnError = Literal["raise", "skip"]
# given a batch and the function that encodes it: its features, computed now or before
FeatureCache = Callable[[Tensor, Callable[[Tensor], ImageFeatures]], ImageFeatures]

_log = logging.getLogger("faprompt")


@dataclass(frozen=True, slots=True)
class _Scored:
    score: float
    score_map: np.ndarray  # in the picture's pixels
    prompts: np.ndarray | None


class Detector(nn.Module):
    """One method on one frozen backbone.

    Text features that depend on no image are computed when the detector is built; call
    `refresh()` after changing parameters.

    Args:
        backbone, method, name: its parts, and its name in results.
        threshold: verdict and regions at this score, 0 to 1, unless a call names another.
        class_name: default class of the pictures, for methods with class names; a model folder
            does not hold it.
        description: further entries of the model folder's config, such as "training".

    Raises:
        ConfigError: the method's image size or its prompts do not fit the backbone.
        ValueError: the threshold is not from 0 to 1.
    """

    def __init__(
        self,
        backbone: Backbone,
        method: Method,
        *,
        name: str,
        threshold: float | None = None,
        class_name: str | None = None,
        description: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_threshold(threshold)
        self.backbone = backbone
        self.method = method
        self.name = name
        self.threshold = threshold
        self._class_name = class_name
        self.description = dict(description or {})
        self.feature_cache: FeatureCache | None = None
        size, patch = method.config.image_size, backbone.spec.vision.patch_size
        if size % patch:
            low = size // patch * patch
            raise ConfigError(
                f"image_size={size} does not split into the {patch}-pixel patches of "
                f"{backbone.name}; {f'{low} or ' if low else ''}{low + patch} would."
            )
        if method.keeps_aspect and method.config.picture_handling == "released":
            raise ConfigError(
                f"{method.name} keeps the aspect ratio of pictures, and picture_handling=released "
                "resizes them to a square; use picture_handling=upright."
            )
        self.transform = Transform(
            image_size=(size, size),
            mean=backbone.spec.mean,
            std=backbone.spec.std,
            interpolation=method.interpolation,
        )
        self.refresh()

    @property
    def class_name(self) -> str | None:
        """The default class of the pictures; fixed when the detector is built."""
        return self._class_name

    @property
    def released_reading(self) -> Transform | None:
        """The transform with which labelled sets are read as public code does, or None."""
        released = self.method.config.picture_handling == "released"
        return self.transform if released else None

    def model_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Return the size, in pixels, at which the model sees a picture of `image_size`."""
        size = self.transform.image_size
        return shorter_edge_size(image_size, size[0]) if self.method.keeps_aspect else size

    def to_pixels(self, image: np.ndarray) -> Tensor:
        """Prepare a decoded picture, (H, W, 3) uint8, as model input: (3, height, width)."""
        size = self.model_size((image.shape[0], image.shape[1]))
        return replace(self.transform, image_size=size).to_pixels(image)

    def refresh(self) -> None:
        """Compute the image-independent text features again.

        Raises:
            ConfigError: the method's prompts are too long for the backbone.
        """
        with torch.no_grad():
            try:
                self._static = self.method.static_text(self.backbone.text)
            except ValueError as error:
                raise ConfigError(f"{self.method.name} on {self.backbone.name}: {error}") from error

    def forward(self, pixels: Tensor, *, class_names: Names = None) -> tuple[Tensor, Tensor]:
        """Score a batch of model input.

        Args:
            pixels: (B, 3, H, W) float, normalised; H and W multiples of the patch size.
            class_names: what each picture shows, or one name for all, for methods with class
                names.

        Returns:
            scores (B,) and maps (B, H, W), both in 0..1; maps are smoothed.
        """
        learning = any(p.requires_grad for p in self.method.parameters())
        static = None if learning and torch.is_grad_enabled() else self._static
        output = self.encode(pixels, static=static, class_names=class_names)
        size = (pixels.shape[-2], pixels.shape[-1])
        return output.score, render_map(
            output.patch_map, model_size=size, sigma_px=self.method.sigma_px
        )

    def encode(self, pixels: Tensor, **options: Any) -> MethodOutput:
        """Run both towers on a batch; options as in `score_features`."""
        return self.score_features(self.encode_image(pixels), **options)

    @torch.no_grad()  # the backbone is frozen
    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Run the image tower on a batch, or take its features from `feature_cache`."""
        encode = partial(self.method.encode_image, self.backbone)
        return encode(pixels) if self.feature_cache is None else self.feature_cache(pixels, encode)

    def score_features(
        self,
        features: ImageFeatures,
        *,
        static: Any = None,
        with_prompt_scores: bool = False,
        class_names: Names = None,
    ) -> MethodOutput:
        """Run the method on features of `encode_image`; see `Method.forward`."""
        _check_class_names(class_names, features.class_token.shape[0], one_for_all=True)
        options: dict[str, Any] = {"static": static, "with_prompt_scores": with_prompt_scores}
        if self.method.uses_class_names:
            own = None if self.class_name is None else [self.class_name]
            options["class_names"] = own if class_names is None else class_names
        return self.method(features, self.backbone.text, **options)

    def predict(
        self,
        image: Any,
        *,
        threshold: float | None = None,
        with_prompt_scores: bool = False,
        bit_depth: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> AnomalyResult:
        """Score one picture: a path, bytes, a PIL image or an array (H, W) or (H, W, 3).

        Args:
            image: the picture.
            threshold: verdict and regions at this score, 0 to 1; None uses the model's own,
                if any.
            with_prompt_scores: also one score per abnormality prompt.
            bit_depth, max_pixels: see `read_image`.

        Raises:
            ImageReadError: the picture cannot be read.
            ValueError, TypeError: an option is out of range, or of another type.
        """
        _check_options(threshold, bit_depth, max_pixels)
        read = read_image(image, bit_depth=bit_depth, max_pixels=max_pixels)
        return self._predict_read([read], threshold, with_prompt_scores)[0]

    def stream(
        self,
        images: Iterable[Any],
        *,
        batch_size: int = 8,
        threshold: float | None = None,
        with_prompt_scores: bool = False,
        bit_depth: int | None = None,
        max_pixels: int = MAX_PIXELS,
        on_error: OnError = "raise",
    ) -> Iterator[AnomalyResult]:
        """Score many pictures batch by batch; results come in order.

        Args:
            images: pictures as `predict` takes them.
            batch_size: pictures scored together.
            threshold, with_prompt_scores, bit_depth, max_pixels: as in `predict`.
            on_error: what to do with a picture that cannot be read. "raise" returns the results
                of all pictures before it, then raises its error; "skip" leaves it out and logs
                its path and the reason as a warning of `faprompt`.

        Raises:
            ImageReadError: a picture cannot be read and `on_error` is "raise".
            ValueError, TypeError: an option is unknown, out of range or of another type.
        """
        check_whole_number("batch_size", batch_size, low=1)
        _check_options(threshold, bit_depth, max_pixels)
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error should be 'raise' or 'skip', got {on_error!r}.")
        options: dict[str, Any] = {"bit_depth": bit_depth, "max_pixels": max_pixels}
        batches = _read_batches(images, batch_size, on_error, options)
        return (
            result
            for batch in batches
            for result in self._predict_read(batch, threshold, with_prompt_scores)
        )

    def predict_batch(
        self,
        images: Sequence[np.ndarray],
        *,
        threshold: float | None = None,
        with_prompt_scores: bool = False,
        class_names: Sequence[str] | None = None,
    ) -> list[AnomalyResult]:
        """Score decoded pictures, each (H, W, 3) uint8 RGB of any size.

        Args:
            images: arrays; `predict` and `stream` read files.
            threshold, with_prompt_scores: as in `predict`.
            class_names: what each picture shows, for methods with class names.

        Raises:
            ModelError: a score is not finite, because the model's values overflow.
            TypeError: a picture is no array.
            ValueError: an array of another shape or dtype, a threshold outside 0 to 1, or not
                one class name for each picture.
        """
        check_threshold(threshold)
        _check_arrays(images)
        _check_class_names(class_names, len(images))
        if not len(images):
            return []
        score = self._score_tiles if self.method.tiled else self._score
        found = score(images, with_prompt_scores, class_names)
        return [self._result(scored, threshold) for scored in found]

    def _predict_read(
        self, batch: Sequence[ReadImage], threshold: float | None, with_prompt_scores: bool
    ) -> list[AnomalyResult]:
        results = self.predict_batch(
            [read.array for read in batch],
            threshold=threshold,
            with_prompt_scores=with_prompt_scores,
        )
        return [
            replace(result, notes=read.notes) for result, read in zip(results, batch, strict=True)
        ]

    @torch.inference_mode()
    def explain(
        self, image: np.ndarray, *, threshold: float | None = None, class_name: str | None = None
    ) -> tuple[AnomalyResult, MethodOutput, MethodParts]:
        """Score a decoded picture and return the parts of the score, in one pass.

        Args:
            image: (H, W, 3) uint8 RGB of any size.
            threshold, class_name: as in `predict` and `predict_batch`.

        Returns:
            The result, bit for bit that of `predict`; the method's output; and its parts.

        Raises:
            ConfigError: this picture is scored as several tiles, which have no common parts.
        """
        check_threshold(threshold)
        _check_arrays([image])
        if self.method.tiled and image.shape[0] != image.shape[1]:
            raise ConfigError(
                f"{self.name} scores a picture of {image.shape[1]}x{image.shape[0]} as several "
                "squares and takes their mean; use a square picture, or build the method with "
                "--set tiles=false."
            )
        names = None if class_name is None else [class_name]
        features, output = self._encode_images([image], True, names)
        (scored,) = self._finish([image], output)
        return self._result(scored, threshold), output, self.method.explain(features, output)

    def fingerprint(self) -> str:
        """Return SHA-256 of all that decides a score: options, weights, backbone, precision."""
        chosen = (self.method.name, to_mapping(self.method.config), self.transform.to_dict())
        digest = hashlib.sha256(repr(chosen).encode())
        digest.update(f"{self.backbone.state_fingerprint()} {self.backbone.precision}".encode())
        digest.update("".join((*self.method.sources, self.class_name or "")).encode())
        for name, tensor in sorted(self.method.state_dict().items()):
            digest.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a model folder: `config.json`, `model.safetensors`, `README.md`.

        Raises:
            ModelError: a parameter holds values that are not finite; nothing is written.
        """
        backbone, described = self.backbone, self.description
        config = {
            "name": self.name,
            "license": described.get("license", "unknown"),
            "method": self.method.name,
            "options": to_mapping(self.method.config),
            "backbone": {
                "name": backbone.name,
                "source": described.get("backbone", {}).get("source", backbone.name),
                "fingerprint": backbone.state_fingerprint(),
            },
            "transform": self.transform.to_dict(),
            "threshold": self.threshold,
            "training": described.get("training", {}),
        }
        write_model(Path(folder), config, self.method.state_dict())

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the model folder to the Hugging Face hub; return the commit's address."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return upload_model(folder, repo_id, **options)

    def _apply(self, *args: Any, **options: Any) -> Detector:
        """Behind `.to(device)` and its kin: the text features move along."""
        super()._apply(*args, **options)
        self.refresh()
        return self

    @torch.inference_mode()
    def _score(
        self, images: Sequence[np.ndarray], with_prompt_scores: bool, class_names: Names
    ) -> list[_Scored]:
        """All pictures in one pass; one by one if they keep their aspect ratios."""
        if self.method.keeps_aspect and len(images) > 1:
            names = [None] * len(images) if class_names is None else [[n] for n in class_names]
            pairs = zip(images, names, strict=True)
            return [self._score([image], with_prompt_scores, name)[0] for image, name in pairs]
        return self._finish(images, self._encode_images(images, with_prompt_scores, class_names)[1])

    def _encode_images(
        self, images: Sequence[np.ndarray], with_prompt_scores: bool, class_names: Names
    ) -> tuple[ImageFeatures, MethodOutput]:
        features = self.encode_image(torch.stack([self.to_pixels(image) for image in images]))
        options: dict[str, Any] = {"static": self._static, "class_names": class_names}
        output = self.score_features(features, with_prompt_scores=with_prompt_scores, **options)
        return features, output

    def _finish(self, images: Sequence[np.ndarray], output: MethodOutput) -> list[_Scored]:
        prompts = output.prompt_scores
        if not output.score.isfinite().all():
            raise ModelError(
                f"{self.name} gives a score that is no number: its values overflow at precision "
                f"{self.backbone.precision}. Use precision fp32, or train the model again."
            )
        return [
            _Scored(
                float(output.score[index]),
                self._render(output.patch_map[index : index + 1], image.shape[:2]),
                None if prompts is None else prompts[index].cpu().numpy(),
            )
            for index, image in enumerate(images)
        ]

    def _score_tiles(
        self, images: Sequence[np.ndarray], with_prompt_scores: bool, class_names: Names
    ) -> list[_Scored]:
        """Each picture as overlapping squares, as many in one pass as there are pictures."""
        boxes = [square_tiles(*image.shape[:2]) for image in images]
        tiles = [
            image[y0:y1, x0:x1]
            for image, places in zip(images, boxes, strict=True)
            for x0, y0, x1, y1 in places
        ]
        names = None
        if class_names is not None:
            named = zip(class_names, boxes, strict=True)
            names = [name for name, places in named for _ in places]
        found: list[_Scored] = []
        for start in range(0, len(tiles), len(images)):
            part = slice(start, start + len(images))
            found += self._score(tiles[part], with_prompt_scores, names[part] if names else None)
        rest = iter(found)
        return [
            _join([next(rest) for _ in places], places, image.shape[:2])
            for image, places in zip(images, boxes, strict=True)
        ]

    def _result(self, scored: _Scored, threshold: float | None) -> AnomalyResult:
        threshold = self.threshold if threshold is None else threshold
        return AnomalyResult(
            score=scored.score,
            score_map=scored.score_map,
            image_size=scored.score_map.shape,
            model=self.name,
            verdict=verdict(scored.score, threshold),
            threshold=threshold,
            regions=marked_regions(scored.score_map, scored.score, threshold),
            prompt_scores=None if scored.prompts is None else tuple(scored.prompts.tolist()),
        )

    def _render(self, grid: Tensor, image_size: tuple[int, int]) -> np.ndarray:
        size, sigma_px = self.model_size(image_size), self.method.sigma_px
        maps = render_map(grid, model_size=size, sigma_px=sigma_px, image_size=image_size)
        return maps[0].cpu().numpy()


def _read_batches(
    images: Iterable[Any], batch_size: int, on_error: OnError, options: dict[str, Any]
) -> Iterator[list[ReadImage]]:
    """Read pictures in batches; an incomplete batch comes before the error that ends it."""
    batch: list[ReadImage] = []
    try:
        for image in images:
            try:
                batch.append(read_image(image, **options))
            except ImageReadError as error:
                if on_error == "raise":
                    raise
                _log.warning("skipped: %s", error)
            if len(batch) == batch_size:
                yield batch
                batch = []
    except Exception:
        yield batch
        raise
    yield batch


def _check_options(threshold: float | None, bit_depth: int | None, max_pixels: int) -> None:
    check_threshold(threshold)
    if bit_depth is not None:
        check_whole_number("bit_depth", bit_depth, low=1, high=32)
    check_whole_number("max_pixels", max_pixels, low=1)


def _check_arrays(images: Any) -> None:
    """Refuse what is no sequence of (H, W, 3) uint8 arrays, before anything is scored."""
    advice = "`predict` and `stream` read files and all other kinds of pictures."
    if isinstance(images, str | bytes | os.PathLike) or not hasattr(images, "__len__"):
        raise TypeError(f"a batch is a list of arrays, got a {type(images).__name__}; {advice}")
    for image in images:
        if not isinstance(image, np.ndarray):
            raise TypeError(
                f"image should be a (H, W, 3) uint8 array, got a {type(image).__name__}; {advice}"
            )
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(
                f"image should be (H, W, 3) uint8, got {image.shape} {image.dtype}; {advice}"
            )


def _check_class_names(class_names: Names, count: int, *, one_for_all: bool = False) -> None:
    if class_names is None:
        return
    if isinstance(class_names, str):
        raise TypeError(
            f"class_names is a list with one name for each picture, got the text {class_names!r}."
        )
    if len(class_names) != count and not (one_for_all and len(class_names) == 1):
        raise ValueError(
            f"class_names should have one name for each of the {count} pictures, "
            f"got {len(class_names)}."
        )


def _join(tiles: Sequence[_Scored], boxes: Sequence[Box], image_size: tuple[int, int]) -> _Scored:
    """One picture from its tiles: the mean of their scores, and of their maps."""
    prompts = [tile.prompts for tile in tiles if tile.prompts is not None]
    return _Scored(
        sum(tile.score for tile in tiles) / len(tiles),
        join_maps([tile.score_map for tile in tiles], boxes, image_size),
        np.mean(prompts, axis=0) if prompts else None,
    )
