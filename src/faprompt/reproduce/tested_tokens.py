"""Share the tokens of tested pictures between the detectors of a study."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from faprompt.clip.vision import ImageFeatures
from faprompt.config import to_mapping
from faprompt.detector import Detector
from faprompt.methods.base import Method
from faprompt.token_cache import StoreShape, TokenRecipe, open_store, token_shape


class TestedTokens:
    """Tokens of tested batches, equal to the bit to what would be computed.

    A batch is a store of `faprompt.token_cache` under the content of its pixels and all that the
    image pass depends on. One dataset is kept at a time; beyond `limit_bytes` of it, batches are
    encoded each time.
    """

    __test__ = False  # no test, whatever pytest makes of its name

    def __init__(self, root: Path, *, limit_bytes: float) -> None:
        self.root, self.limit_bytes = root, limit_bytes
        self.folder = root  # of the dataset at hand
        self.encoded = self.reused = 0  # pictures
        self.seconds = 0.0  # of encoding
        self.bytes = 0  # in `folder`

    def serve(self, detector: Detector, dataset: str) -> None:
        """Let a detector take tokens from here; those of other datasets are removed.

        A method with an image pass of its own, with windows, or on feature maps, many times the
        size of the picture, encodes for itself.
        """
        self._turn_to(dataset)
        method, backbone = detector.method, detector.backbone
        own_pass = type(method).encode_image is not Method.encode_image
        if own_pass or method.image_options.windows or not backbone.has_text:
            return
        recipe = TokenRecipe(
            backbone=backbone.state_fingerprint(),
            precision=backbone.precision,
            image_options=to_mapping(method.image_options),
            transform=detector.transform.to_dict(),
            pictures=(),
        )

        def features(pixels: Tensor, encode: Callable[[Tensor], ImageFeatures]) -> ImageFeatures:
            named = replace(recipe, pictures=tuple(map(_digest, pixels)))
            size = (pixels.shape[-2], pixels.shape[-1])
            shape = token_shape(backbone, method.image_options, size, len(pixels))
            return self._features(named, shape, encode, pixels, backbone.device)

        detector.feature_cache = features

    def clear(self) -> None:
        """Remove all files."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.bytes = 0

    def _turn_to(self, dataset: str) -> None:
        if self.folder == self.root / dataset:
            return
        self.folder = self.root / dataset
        for other in self.root.glob("*"):
            if other != self.folder:
                shutil.rmtree(other, ignore_errors=True)
        self.bytes = sum(path.stat().st_size for path in self.folder.glob("*/*.npy"))

    def _features(
        self,
        recipe: TokenRecipe,
        shape: StoreShape,
        encode: Callable[[Tensor], ImageFeatures],
        pixels: Tensor,
        device: torch.device,
    ) -> ImageFeatures:
        folder = self.folder / recipe.key
        if folder.exists():
            store = open_store(folder, recipe, shape)
            if not store.missing():
                self.reused += len(pixels)
                features = store.read(range(len(pixels)), device)
                store.close()
                return features
        began = time.perf_counter()
        features = encode(pixels)
        if features.class_token.is_cuda:  # or the seconds would be somebody else's
            torch.cuda.synchronize(device)
        self.seconds += time.perf_counter() - began
        self.encoded += len(pixels)
        if self.bytes + shape.total_bytes <= self.limit_bytes:
            store = open_store(self.folder / recipe.key, recipe, shape)
            store.write(range(shape.pictures), features)
            store.close()
            self.bytes += shape.total_bytes
        return features


def _digest(pixels: Tensor) -> str:
    return hashlib.sha256(pixels.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
