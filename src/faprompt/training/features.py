"""Pictures and tokens of a training set: tokens are cached, or computed again in each epoch.

The image tower does not learn and the pictures are not augmented, so its tokens are the same in
every epoch. `prepare_features` keeps them on disk (`faprompt.token_cache`). Where the cache would
exceed its limit or the disk, the tokens are streamed: computed again for every batch by the
same encoder, and equal to the bit.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from faprompt.clip.backbone import Backbone
from faprompt.clip.vision import ImageFeatures
from faprompt.config import to_mapping
from faprompt.data.masks import cut_region
from faprompt.errors import ConfigError, ImageReadError
from faprompt.files import file_digest
from faprompt.imaging.image_reading import PictureHandling, read_image, read_resized
from faprompt.imaging.transform import Transform
from faprompt.methods.base import Method
from faprompt.records import Sample
from faprompt.token_cache import StoreShape, TokenRecipe, TokenStore, open_store, token_shape
from faprompt.training.training_config import TrainingConfig, default_cache_dir
from faprompt.work import ProgressCallback, logger, read_ahead

Origin = Literal["cached", "streamed"]

_DTYPES = {"float32": torch.float32, "float16": torch.float16}
_COMMIT_EVERY_SECONDS = 5.0
_DISK_SHARE = 0.95  # of the free space; the rest is for the run's own files


class Pictures:
    """An ordered training set and the transform its pictures go through."""

    def __init__(
        self,
        samples: Sequence[Sample],
        transform: Transform,
        *,
        handling: PictureHandling = "upright",
        bit_depth: int | None = None,
        readers: int = 1,
    ) -> None:
        self.samples = tuple(samples)
        self.transform = transform
        self.handling: PictureHandling = handling
        self.bit_depth = bit_depth
        self.readers = readers

    def __len__(self) -> int:
        return len(self.samples)

    def pixels(self, index: int) -> Tensor:
        """Return the pixels (3, height, width) of one sample; of its region only, where it has one.

        Raises:
            ImageReadError: the file cannot be read.
            DatasetError: the region leaves the picture.
        """
        sample, transform = self.samples[index], self.transform
        if self.handling == "released":
            image = read_resized(sample.image_path, transform, region=sample.region)
        else:
            image = read_image(sample.image_path, bit_depth=self.bit_depth).array
            image = cut_region(image, sample)
        return torch.from_numpy(transform.to_pixels(image))

    def read(self, indices: Sequence[int]) -> Iterator[Tensor]:
        """Yield the pixels of some samples in that order, read ahead by threads."""
        return read_ahead(self.pixels, indices, workers=self.readers)

    def fingerprints(self) -> tuple[str, ...]:
        """Return, for each sample, its file's size and SHA-256 and its region.

        Raises:
            ImageReadError: a file is missing or cannot be opened.
        """
        return tuple(read_ahead(_fingerprint, self.samples, workers=self.readers))


def _fingerprint(sample: Sample) -> str:
    try:
        size, digest = sample.image_path.stat().st_size, file_digest(sample.image_path)
    except OSError as error:
        raise ImageReadError(f"{sample.image_path} cannot be opened: {error}.") from error
    place = "" if sample.region is None else ":" + ",".join(map(str, sample.region))
    return f"{size}:{digest}{place}"


def feature_recipe(
    method: Method, backbone: Backbone, pictures: Pictures, *, dtype: Literal["float32", "float16"]
) -> TokenRecipe:
    """Return what the tokens of a training set depend on; every picture's file is read."""
    return TokenRecipe(
        backbone=backbone.state_fingerprint(),
        precision=backbone.precision,
        image_options=to_mapping(method.image_options),
        transform=pictures.transform.to_dict(),
        bit_depth=pictures.bit_depth,
        dtype=dtype,
        pictures=pictures.fingerprints(),
        handling=pictures.handling,
    )


class Encoder:
    """Pictures through the image tower, without gradients. Counts its seconds."""

    def __init__(
        self, method: Method, backbone: Backbone, pictures: Pictures, config: TrainingConfig
    ) -> None:
        self.method, self.backbone, self.pictures = method, backbone, pictures
        self.dtype = config.cache_dtype
        self.batch_size = config.encode_batch_size
        self.seconds = 0.0  # reading, resizing and encoding pictures
        self.encoded = 0  # pictures

    @property
    def shape(self) -> StoreShape:
        """Size of the tokens of all pictures."""
        options, size = self.method.image_options, self.pictures.transform.image_size
        return token_shape(self.backbone, options, size, len(self.pictures), self.dtype)

    def encode(self, indices: Sequence[int]) -> Iterator[tuple[list[int], ImageFeatures]]:
        """Yield groups of `encode_batch_size` pictures in order; patch tokens in the kept type."""
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
        dtype = _DTYPES[self.dtype]
        kept = {layer: tokens.to(dtype) for layer, tokens in raw.patch_tokens.items()}
        return ImageFeatures(raw.class_token, kept, raw.grid)


class Features:
    """Tokens for the training loop: from a filled store, or streamed where there is none."""

    def __init__(self, encoder: Encoder, store: TokenStore | None = None) -> None:
        self.encoder, self.store = encoder, store

    @property
    def origin(self) -> Origin:
        """Where the tokens come from."""
        return "streamed" if self.store is None else "cached"

    def batch(self, indices: Sequence[int]) -> ImageFeatures:
        """Return features of some pictures in that order: float32, on the device, no gradient."""
        if self.store is not None:
            return self.store.read(indices, self.encoder.backbone.device)
        groups = [features for _, features in self.encoder.encode(indices)]
        patches = {
            layer: torch.cat([g.patch_tokens[layer] for g in groups]).float()
            for layer in groups[0].patch_tokens
        }
        classes = torch.cat([g.class_token for g in groups])
        return ImageFeatures(classes, patches, groups[0].grid)

    def close(self) -> None:
        """Close the files of the cache."""
        if self.store is not None:
            self.store.close()


def prepare_features(
    encoder: Encoder,
    recipe: TokenRecipe,
    config: TrainingConfig,
    *,
    progress: ProgressCallback,
) -> Features:
    """Fill or reuse the cache of a recipe, or stream where it must not or cannot be.

    Raises:
        ConfigError: `cache="on"`, but it exceeds the limit or the disk.
        FapromptError: the cache folder holds something else, or the disk got full.
    """
    folder = Path(config.cache_dir or default_cache_dir()).expanduser() / recipe.key
    if config.cache == "off":
        logger.info("Feature cache off: features are computed again in every epoch.")
        return Features(encoder)
    reason = None if folder.exists() else _too_large(encoder.shape, folder, config.cache_limit_gb)
    if reason and config.cache == "on":
        raise ConfigError(f"{reason}; raise cache_limit_gb, free the disk, or set cache=auto.")
    if reason:
        logger.info(f"{reason}, so features are computed again in every epoch.")
        return Features(encoder)
    return Features(encoder, _fill(folder, encoder, recipe, progress))


def _fill(
    folder: Path, encoder: Encoder, recipe: TokenRecipe, progress: ProgressCallback
) -> TokenStore:
    shape = encoder.shape
    count = shape.pictures
    if not folder.exists():
        logger.info(
            f"Feature cache: {shape.total_bytes / 1e9:.2f} GB for {count} pictures in {folder}."
        )
    store = open_store(folder, recipe, shape)
    missing = store.missing()
    if len(missing) < count:
        logger.info(f"Feature cache: {count - len(missing)} of {count} pictures are in {folder}.")
    committed, done = time.monotonic(), count - len(missing)
    try:
        for group, features in encoder.encode(missing):
            store.write(group, features)
            done += len(group)
            if time.monotonic() - committed > _COMMIT_EVERY_SECONDS:
                store.commit()
                committed = time.monotonic()
            progress("images", done, count)
    finally:
        store.commit()
    return store


def _too_large(shape: StoreShape, folder: Path, limit_gb: float) -> str | None:
    """Return why a new cache must not be written, or None."""
    size = shape.total_bytes / 1e9
    if size > limit_gb:
        return f"The feature cache would take {size:.2f} GB, above cache_limit_gb={limit_gb:g}"
    there = next(place for place in folder.absolute().parents if place.exists())
    free = shutil.disk_usage(there).free / 1e9
    if size > _DISK_SHARE * free:
        return f"The feature cache would take {size:.2f} GB, and {there} has {free:.2f} GB free"
    return None
