"""What the frozen image tower says of a training set: computed once, or again in each epoch.

The tower does not learn and the pictures are not augmented, so its tokens are the same in
every epoch. `prepare_features` keeps them on disk (`store`), under a key made of all they
depend on. Where the cache would outgrow its limit or the disk, the tokens are streamed:
computed again for every batch, by the same encoder, and equal to the bit.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from faprompt.clip.backbone import Backbone
from faprompt.clip.vision import ImageFeatures
from faprompt.errors import ConfigError
from faprompt.imaging.image_reading import PictureHandling
from faprompt.methods.base import Method
from faprompt.training.config import TrainingConfig, default_cache_dir
from faprompt.training.pictures import Pictures
from faprompt.training.store import FORMAT, StoreShape, TokenStore, open_store
from faprompt.work import ProgressCallback, logger

Origin = Literal["cached", "streamed"]

_DTYPES = {"float32": torch.float32, "float16": torch.float16}
_COMMIT_EVERY_SECONDS = 5.0
_DISK_SHARE = 0.95  # of the free space; the rest is for the run's own files


@dataclass(frozen=True, slots=True)
class FeatureRecipe:
    """All that the tokens depend on."""

    backbone: str  # state_fingerprint
    precision: str
    layers: tuple[int, ...]
    value_path: bool
    class_ln_post: bool
    transform: dict[str, Any]
    bit_depth: int | None
    dtype: str
    pictures: tuple[str, ...]  # fingerprints, in order
    image_options: dict[str, Any] = field(default_factory=dict)
    handling: PictureHandling = "upright"

    @property
    def key(self) -> str:
        """SHA-256 over all of it, 64 hex digits."""
        told = {"format": FORMAT, "pictures": self.pictures, **self.about()}
        text = json.dumps(told, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def about(self) -> dict[str, Any]:
        """The recipe for people: everything but the long list."""
        told = {k: v for k, v in asdict(self).items() if k != "pictures"}
        for name, default in (("image_options", {}), ("handling", "upright")):
            if told[name] == default:  # left out, so that older caches serve
                del told[name]
        return told


def feature_recipe(
    method: Method, backbone: Backbone, pictures: Pictures, *, dtype: str
) -> FeatureRecipe:
    """Read every picture's bytes once, and the backbone's weights."""
    return FeatureRecipe(
        backbone=backbone.state_fingerprint(),
        precision=backbone.precision,
        layers=_layers(method, backbone),
        value_path=method.value_path,
        class_ln_post=method.class_ln_post,
        transform=pictures.transform.to_dict(),
        bit_depth=pictures.bit_depth,
        dtype=dtype,
        pictures=pictures.fingerprints(),
        image_options=method.image_options,
        handling=pictures.handling,
    )


class Encoder:
    """Pictures through the image tower, without gradients. Counts its seconds."""

    def __init__(
        self, method: Method, backbone: Backbone, pictures: Pictures, config: TrainingConfig
    ) -> None:
        self.method = method
        self.backbone = backbone
        self.pictures = pictures
        self.layers = _layers(method, backbone)
        self.dtype = _DTYPES[config.cache_dtype]
        self.batch_size = config.encode_batch_size
        self.seconds = 0.0  # reading, resizing and encoding pictures
        self.encoded = 0  # pictures

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        patch = self.backbone.spec.vision.patch_size
        height, width = self.pictures.transform.image_size
        return height // patch, width // patch

    def encode(self, indices: Sequence[int]) -> Iterator[tuple[list[int], ImageFeatures]]:
        """Groups of `encode_batch_size` pictures in order; patch tokens in the kept dtype."""
        images = self.pictures.read(indices)
        for start in range(0, len(indices), self.batch_size):
            group = list(indices[start : start + self.batch_size])
            started = time.perf_counter()
            features = self._encode(torch.stack([next(images) for _ in group]))
            self.seconds += time.perf_counter() - started
            self.encoded += len(group)
            yield group, features

    @torch.no_grad()
    def _encode(self, pixels: Tensor) -> ImageFeatures:
        raw = self.method.encode_image(self.backbone, pixels)
        if raw.class_token.is_cuda:  # or the seconds would be somebody else's
            torch.cuda.synchronize(raw.class_token.device)
        kept = {layer: tokens.to(self.dtype) for layer, tokens in raw.patch_tokens.items()}
        return ImageFeatures(raw.class_token, kept, raw.grid)


class FeatureSource(Protocol):
    """Where the training loop gets its features from."""

    encoder: Encoder
    origin: Origin

    def batch(self, indices: Sequence[int]) -> ImageFeatures:
        """Features of some pictures in that order: float32, on the device, no gradient."""
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


class StreamedFeatures:
    """Computed anew for every batch."""

    origin: Origin = "streamed"

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def batch(self, indices: Sequence[int]) -> ImageFeatures:
        """See `FeatureSource.batch`."""
        groups = [features for _, features in self.encoder.encode(indices)]
        patches = {
            layer: torch.cat([g.patch_tokens[layer] for g in groups]).float()
            for layer in self.encoder.layers
        }
        classes = torch.cat([g.class_token for g in groups])
        return ImageFeatures(classes, patches, groups[0].grid)

    def close(self) -> None:
        """Nothing to let go of."""


class CachedFeatures:
    """Read from a filled store."""

    origin: Origin = "cached"

    def __init__(self, store: TokenStore, encoder: Encoder) -> None:
        self.store = store
        self.encoder = encoder

    def batch(self, indices: Sequence[int]) -> ImageFeatures:
        """See `FeatureSource.batch`."""
        device = self.encoder.backbone.device
        classes, layers = self.store.read(indices)
        patches = {
            layer: torch.from_numpy(tokens).to(device).float()
            for layer, tokens in zip(self.encoder.layers, layers, strict=True)
        }
        return ImageFeatures(torch.from_numpy(classes).to(device), patches, self.encoder.grid)

    def close(self) -> None:
        """Let go of the cache's files."""
        self.store.close()


def prepare_features(
    encoder: Encoder,
    recipe: FeatureRecipe,
    config: TrainingConfig,
    *,
    progress: ProgressCallback,
) -> FeatureSource:
    """Fill or reuse the cache of this recipe, or stream where it must not or cannot be.

    Raises:
        ConfigError: `cache="on"`, but it exceeds the limit or the disk.
        FapromptError: the cache folder holds something else, or the disk got full.
    """
    folder = Path(config.cache_dir or default_cache_dir()).expanduser() / recipe.key
    rows, columns = encoder.grid
    spec = encoder.backbone.spec
    raw = recipe.image_options.get("raw_tokens", False)
    shape = StoreShape(
        len(encoder.pictures), encoder.layers, rows * columns,
        spec.vision.width if raw else spec.embed_dim, config.cache_dtype,
        class_channels=spec.embed_dim,
    )  # fmt: skip
    if config.cache == "off":
        logger.info("Feature cache off: features are computed again in every epoch.")
        return StreamedFeatures(encoder)
    reason = None if folder.exists() else _too_large(shape, folder, config.cache_limit_gb)
    if reason and config.cache == "on":
        raise ConfigError(f"{reason}; raise cache_limit_gb, free the disk, or set cache=auto.")
    if reason:
        logger.info(f"{reason}, so features are computed again in every epoch.")
        return StreamedFeatures(encoder)
    return CachedFeatures(_fill(folder, encoder, recipe, shape, progress), encoder)


def _fill(
    folder: Path,
    encoder: Encoder,
    recipe: FeatureRecipe,
    shape: StoreShape,
    progress: ProgressCallback,
) -> TokenStore:
    count = shape.pictures
    if not folder.exists():
        logger.info(
            f"Feature cache: {shape.total_bytes / 1e9:.2f} GB for {count} pictures in {folder}."
        )
    store = open_store(folder, recipe.key, shape, recipe.about())
    missing = store.missing()
    if len(missing) < count:
        logger.info(f"Feature cache: {count - len(missing)} of {count} pictures are in {folder}.")
    committed, done = time.monotonic(), count - len(missing)
    try:
        for group, features in encoder.encode(missing):
            _write(store, group, features)
            done += len(group)
            if time.monotonic() - committed > _COMMIT_EVERY_SECONDS:
                store.commit()
                committed = time.monotonic()
            progress("images", done, count)
    finally:
        store.commit()
    return store


def _write(store: TokenStore, group: list[int], features: ImageFeatures) -> None:
    classes = features.class_token.cpu().numpy()
    layers = torch.stack(list(features.patch_tokens.values()), dim=1).cpu().numpy()
    for row, class_token, patch_tokens in zip(group, classes, layers, strict=True):
        store.write(row, class_token, patch_tokens)


def _too_large(shape: StoreShape, folder: Path, limit_gb: float) -> str | None:
    """Why a new cache must not be written, or None."""
    size = shape.total_bytes / 1e9
    if size > limit_gb:
        return f"The feature cache would take {size:.2f} GB, above cache_limit_gb={limit_gb:g}"
    there = next(place for place in folder.absolute().parents if place.exists())
    free = shutil.disk_usage(there).free / 1e9
    if size > _DISK_SHARE * free:
        return f"The feature cache would take {size:.2f} GB, and {there} has {free:.2f} GB free"
    return None


def _layers(method: Method, backbone: Backbone) -> tuple[int, ...]:
    depth = backbone.spec.vision.layers
    return tuple(sorted({depth} if method.layers is None else set(method.layers)))
