"""The tensor interface of a detector, and its model folder.

A normalised batch gives scores and maps, with gradients. Training, evaluation and export use it;
`PictureDetector` adds pictures, and `Detector` joins both.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from faprompt.clip.backbone import Backbone
from faprompt.clip.vision import ImageFeatures
from faprompt.config import to_mapping
from faprompt.detector_parts import check_class_names
from faprompt.detector_setup import DetectorSetup, check_kept, save_setup
from faprompt.errors import ConfigError
from faprompt.imaging.transform import Transform
from faprompt.methods.base import Method, MethodOutput, Names
from faprompt.model_folder import write_model
from faprompt.picture_detector import PictureDetector
from faprompt.picture_model import ModelGeometry, ModelIdentity
from faprompt.regions import check_threshold
from faprompt.scoring import render_map

# given a batch and the function that encodes it: its features, computed now or before
FeatureCache = Callable[[Tensor, Callable[[Tensor], ImageFeatures]], ImageFeatures]


class TensorDetector(PictureDetector):
    """Score batches of tensors with one method on one frozen backbone; see `Detector`.

    Arguments and errors are those of `Detector`.
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
        setup: DetectorSetup | None = None,
    ) -> None:
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
        self._set(setup or DetectorSetup())

    @property
    def class_name(self) -> str | None:
        """The default class of the pictures; fixed when the detector is built."""
        return self._class_name

    @property
    def geometry(self) -> ModelGeometry:
        """How the method takes pictures."""
        method = self.method
        return ModelGeometry(
            transform=self.transform, sigma_px=method.sigma_px, keeps_aspect=method.keeps_aspect,
            tiled=method.tiled, stacks_squares=method.stacks_squares,
        )  # fmt: skip

    @property
    def identity(self) -> ModelIdentity:
        """Method and backbone, and where torch runs them."""
        backbone = self.backbone
        return ModelIdentity(
            method=self.method.name, backbone=backbone.name,
            backbone_fingerprint=backbone.state_fingerprint(),
            runtime=("torch", torch.__version__), precision=backbone.precision,
            device=str(backbone.device),
        )  # fmt: skip

    @property
    def released_reading(self) -> Transform | None:
        """The transform with which labelled sets are read as public code does, or None."""
        released = self.method.config.picture_handling == "released"
        return self.transform if released else None

    def _set(self, setup: DetectorSetup) -> None:
        super()._set(setup)
        self._place_memory()

    def _place_memory(self) -> None:
        """Put the references beside the model; on a CPU they share memory with the setup's."""
        device, references = next(self.backbone.parameters()).device, self.setup.references
        banks = {} if references is None else references.banks
        self._memory = {
            product: {k: torch.from_numpy(rows).to(device) for k, rows in bank.tokens.items()}
            for product, bank in banks.items()
        }

    def to_pixels(self, image: np.ndarray) -> Tensor:
        """Prepare a decoded picture, (H, W, 3) uint8, as model input: (3, height, width)."""
        return torch.from_numpy(self.model_input(image))

    def refresh(self) -> None:
        """Compute the text features again; ConfigError if a prompt is too long."""
        with torch.no_grad():
            try:
                self._static = self.method.static_text(self.backbone.text)
            except ValueError as error:
                raise ConfigError(f"{self.method.name} on {self.backbone.name}: {error}") from error

    def to(self, device: str | torch.device) -> Self:
        """Move the model, its text features and its references in place; return the detector.

        Args:
            device: as torch names it: "cpu", "cuda", "cuda:1" or "mps".
        """
        self.backbone.to(device)
        self.method.to(device)
        self.refresh()
        self._place_memory()
        return self

    def __call__(self, pixels: Tensor, *, class_names: Names = None) -> tuple[Tensor, Tensor]:
        """Return scores and smoothed maps of a normalised batch; gradients are kept.

        Args:
            pixels: (B, 3, H, W) float, normalised, see `to_pixels`; H and W are multiples of
                the patch size.
            class_names: what each picture shows, or all of them, for methods with class names.

        Returns:
            Scores (B,) and maps (B, H, W), both 0 to 1.
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

    def decided_by(self) -> dict[str, str]:
        """Return the name and value, or digest, of everything that decides a score."""
        method, backbone = self.method, self.backbone
        weights, options = hashlib.sha256(), repr(to_mapping(method.config))
        for name, tensor in sorted(method.state_dict().items()):
            weights.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
        return {
            "method": method.name,
            "options": hashlib.sha256(options.encode()).hexdigest(),
            "weights": weights.hexdigest(),
            "backbone": backbone.state_fingerprint(),
            "precision": backbone.precision,
            "transform": repr(self.transform.to_dict()),
            "files": ",".join(method.sources),
            "class name": self.class_name or "",
            **self.setup.decided_by(),
        }

    def model_config(self) -> dict[str, Any]:
        """Return the config of a model folder, without its format."""
        backbone, described = self.backbone, self.description
        return {
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

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a model folder: `config.json`, `model.safetensors`, `README.md`, and the setup.

        Raises:
            ConfigError: settings that are kept with a calibration only, and there is none.
            ModelError: a parameter holds values that are not finite; nothing is written.
        """
        check_kept(self.setup)
        write_model(Path(folder), self.model_config(), self.method.state_dict())
        save_setup(self.setup, Path(folder))

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the model folder to the Hugging Face hub; return the commit's address."""
        from huggingface_hub import HfApi

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            api = HfApi()
            api.create_repo(repo_id, exist_ok=True)
            return str(api.upload_folder(repo_id=repo_id, folder_path=folder, **options))
