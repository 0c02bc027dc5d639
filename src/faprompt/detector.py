"""A detector: backbone, method and transform together, with two interfaces.

`forward` takes a normalised batch and allows gradients; training and evaluation use it.
`predict` reads and resizes a picture, calls the same code without gradients, and returns the
map in the picture's own pixels.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
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
from faprompt.imaging.image_reading import MAX_PIXELS, ImageSource, ReadImage, read_image
from faprompt.imaging.picture_views import cut_tiles, join_results, tile_boxes
from faprompt.imaging.transform import Transform, shorter_edge_size
from faprompt.methods.base import Method, MethodOutput, MethodParts, Names, check_class_names
from faprompt.model_folder import write_model
from faprompt.records import AnomalyResult
from faprompt.regions import check_threshold, marked_regions, verdict
from faprompt.scoring import render_map

OnError = Literal["raise", "skip"]
# given a batch and the function that encodes it: its features, computed now or before
FeatureCache = Callable[[Tensor, Callable[[Tensor], ImageFeatures]], ImageFeatures]

_log = logging.getLogger("faprompt")


class Detector(nn.Module):
    """One method on one frozen backbone; many threads may share it.

    Text features that depend on no image are computed when the detector is built; call
    `refresh()` after changing parameters.

    Args:
        backbone, method, name: its parts, and its name in results.
        threshold: default of the verdict and the regions, 0 to 1.
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
        """Compute the text features again; ConfigError if a prompt is too long."""
        with torch.no_grad():
            try:
                self._static = self.method.static_text(self.backbone.text)
            except ValueError as error:
                raise ConfigError(f"{self.method.name} on {self.backbone.name}: {error}") from error

    def forward(self, pixels: Tensor, *, class_names: Names = None) -> tuple[Tensor, Tensor]:
        """Return scores (B,) and smoothed maps (B, H, W) of model input, both in 0..1.

        `pixels` are (B, 3, H, W) float, normalised; H and W are multiples of the patch size.
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
        check_class_names(class_names, features.class_token.shape[0], one_for_all=True)
        options: dict[str, Any] = {"static": static, "with_prompt_scores": with_prompt_scores}
        if self.method.uses_class_names:
            own = None if self.class_name is None else [self.class_name]
            options["class_names"] = own if class_names is None else class_names
        return self.method(features, self.backbone.text, **options)

    def predict(
        self,
        image: ImageSource,
        *,
        threshold: float | None = None,
        with_prompt_scores: bool = False,
        bit_depth: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> AnomalyResult:
        """Score one picture: a path, bytes, a PIL image or an array (H, W) or (H, W, 3).

        Args:
            image: the picture.
            threshold: verdict and regions at this score, 0 to 1; default: the model's own.
            with_prompt_scores: also return one score per abnormality prompt.
            bit_depth, max_pixels: see `read_image`.

        Raises:
            ImageReadError: the picture cannot be read.
            ValueError, TypeError: an option is out of range, or of another type.
        """
        (result,) = self.stream(
            [image],
            threshold=threshold,
            with_prompt_scores=with_prompt_scores,
            bit_depth=bit_depth,
            max_pixels=max_pixels,
        )
        return result

    def stream(
        self,
        images: Iterable[ImageSource],
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
            on_error: for a picture that cannot be read, "raise" returns the results of all
                pictures before it, then raises its error; "skip" leaves it out and logs its
                path and the reason as a warning of `faprompt`.

        Raises:
            ImageReadError: a picture cannot be read and `on_error` is "raise".
            ValueError, TypeError: an option is unknown, out of range or of another type.
        """
        check_whole_number("batch_size", batch_size, low=1)
        check_threshold(threshold)
        if bit_depth is not None:
            check_whole_number("bit_depth", bit_depth, low=1, high=32)
        check_whole_number("max_pixels", max_pixels, low=1)
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error should be 'raise' or 'skip', got {on_error!r}.")
        read = partial(read_image, bit_depth=bit_depth, max_pixels=max_pixels)
        score = partial(
            self.predict_batch, threshold=threshold, with_prompt_scores=with_prompt_scores
        )
        return (
            replace(result, notes=image.notes)
            for batch in _read_batches(images, batch_size, on_error, read)
            for result, image in zip(score([image.array for image in batch]), batch, strict=True)
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

        `class_names` say what each picture shows, for methods with class names; the other
        options are as in `predict`.

        Raises:
            ModelError: a score is not finite, because the model's values overflow.
            TypeError: a picture is no array.
            ValueError: an array of another shape or dtype, a threshold outside 0 to 1, or not
                one class name for each picture.
        """
        check_threshold(threshold)
        _check_arrays(images)
        check_class_names(class_names, len(images))
        boxes = [tile_boxes(image, tiled=self.method.tiled) for image in images]
        owners = [index for index, places in enumerate(boxes) for _ in places]
        tiles = [tile for i, image in enumerate(images) for tile in cut_tiles(image, boxes[i])]
        names = None if class_names is None else [class_names[index] for index in owners]
        step = 1 if self.method.keeps_aspect else len(images)  # inputs of one pass have one size
        results: list[AnomalyResult] = []
        for start in range(0, len(tiles), max(1, step)):
            part = slice(start, start + step)
            results += self._score(tiles[part], with_prompt_scores, names and names[part])[0]
        rest = iter(results)
        joined = (
            join_results([next(rest) for _ in places], places, image.shape[:2])
            for image, places in zip(images, boxes, strict=True)
        )
        return [self._judge(result, threshold) for result in joined]

    @torch.inference_mode()
    def explain(
        self, image: np.ndarray, *, threshold: float | None = None, class_name: str | None = None
    ) -> tuple[AnomalyResult, MethodOutput, MethodParts]:
        """Score a decoded picture and return the parts of the score, in one pass.

        The result is bit for bit that of `predict`. `image` is (H, W, 3) uint8 RGB of any size;
        `threshold` and `class_name` are as in `predict` and `predict_batch`.

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
        (result,), features, output = self._score([image], True, names)
        return self._judge(result, threshold), output, self.method.explain(features, output)

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
        from huggingface_hub import HfApi

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            api = HfApi()
            api.create_repo(repo_id, exist_ok=True)
            return str(api.upload_folder(repo_id=repo_id, folder_path=folder, **options))

    def _apply(self, *args: Any, **options: Any) -> Detector:
        """Move the text features along in `.to(device)` and its kin."""
        super()._apply(*args, **options)
        self.refresh()
        return self

    @torch.inference_mode()
    def _score(
        self, images: Sequence[np.ndarray], with_prompt_scores: bool, class_names: Names
    ) -> tuple[list[AnomalyResult], ImageFeatures, MethodOutput]:
        """Score pictures in one pass; the results have no verdict yet."""
        features = self.encode_image(torch.stack([self.to_pixels(image) for image in images]))
        output = self.score_features(
            features,
            static=self._static,
            with_prompt_scores=with_prompt_scores,
            class_names=class_names,
        )
        if not output.score.isfinite().all():
            raise ModelError(
                f"{self.name} gives a score that is no number: its values overflow at precision "
                f"{self.backbone.precision}. Use precision fp32, or train the model again."
            )
        prompts, results = output.prompt_scores, []
        for index, image in enumerate(images):
            size = (image.shape[0], image.shape[1])
            score_map = render_map(
                output.patch_map[index : index + 1],
                model_size=self.model_size(size),
                sigma_px=self.method.sigma_px,
                image_size=size,
            )
            result = AnomalyResult(
                score=float(output.score[index]),
                score_map=score_map[0].cpu().numpy(),
                image_size=size,
                model=self.name,
                prompt_scores=None if prompts is None else tuple(prompts[index].tolist()),
            )
            results.append(result)
        return results, features, output

    def _judge(self, result: AnomalyResult, threshold: float | None) -> AnomalyResult:
        threshold = self.threshold if threshold is None else threshold
        return replace(
            result,
            verdict=verdict(result.score, threshold),
            threshold=threshold,
            regions=marked_regions(result.score_map, result.score, threshold),
        )


def _read_batches(
    images: Iterable[ImageSource],
    batch_size: int,
    on_error: OnError,
    read: Callable[[ImageSource], ReadImage],
) -> Iterator[list[ReadImage]]:
    """Read pictures in batches; an incomplete batch comes before the error that ends it."""
    batch: list[ReadImage] = []
    try:
        for image in images:
            try:
                batch.append(read(image))
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


def _check_arrays(images: Any) -> None:
    """Refuse what is no sequence of (H, W, 3) uint8 arrays, before anything is scored."""
    advice = "`predict` and `stream` read files and all other kinds of pictures."
    if isinstance(images, str | bytes | os.PathLike) or not hasattr(images, "__len__"):
        raise TypeError(f"a batch is a list of arrays, got a {type(images).__name__}; {advice}")
    for image in images:
        wanted = "image should be a (H, W, 3) uint8 array"
        if not isinstance(image, np.ndarray):
            raise TypeError(f"{wanted}, got a {type(image).__name__}; {advice}")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"{wanted}, got {image.shape} {image.dtype}; {advice}")
