"""Keep the image tower's tokens on disk; a store is one folder for a list of pictures.

    index.json          what the tokens are, and the key they belong to
    class_tokens.npy    (pictures, D) float32
    patch_tokens.npy    (layers, pictures, N, D or the tower's width)
    done.npy            per picture: 0 while missing, else 2^32 + CRC-32 of its tokens

An interrupted run resumes with the missing pictures; two runs may fill a store at once.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.lib.format import open_memmap

from faprompt.clip.backbone import Backbone
from faprompt.clip.vision import ImageFeatures, ImageOptions
from faprompt.config import read_json
from faprompt.errors import FapromptError
from faprompt.files import write_atomically
from faprompt.imaging.image_reading import PictureHandling

FORMAT = 2  # part of every key: raise it when reading or encoding changes the tokens
TokenType = Literal["float32", "float16"]

_INDEX, _CLASSES, _PATCHES, _DONE = (
    "index.json", "class_tokens.npy", "patch_tokens.npy", "done.npy",
)  # fmt: skip
_DONE_BIT = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecipe:
    """Everything that the tokens of some pictures depend on."""

    backbone: str  # state_fingerprint
    precision: str
    image_options: dict[str, Any]  # of the method
    transform: dict[str, Any]
    bit_depth: int | None = None
    dtype: TokenType = "float32"  # of the patch tokens
    pictures: tuple[str, ...]  # digests of their content, in order
    handling: PictureHandling = "upright"

    @property
    def key(self) -> str:
        """SHA-256 of the recipe, 64 hex digits."""
        plain = {"format": FORMAT, "pictures": self.pictures, **self.about()}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    def about(self) -> dict[str, Any]:
        """Return everything but the list of pictures."""
        plain = {k: v for k, v in asdict(self).items() if k != "pictures"}
        if self.handling == "upright":  # left out, so that older trainings resume
            del plain["handling"]
        return plain


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreShape:
    """Size of a store."""

    pictures: int
    layers: tuple[int, ...]  # keys of `ImageFeatures.patch_tokens`
    grid: tuple[int, int]  # rows and columns of patches
    channels: int  # of the patch tokens
    class_channels: int  # of the class token
    dtype: TokenType = "float32"  # of the patch tokens; class tokens are always float32

    def arrays(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Return file name -> shape and type of its array."""
        patches = len(self.layers), self.pictures, math.prod(self.grid), self.channels
        return {
            _CLASSES: ((self.pictures, self.class_channels), np.dtype(np.float32)),
            _PATCHES: (patches, np.dtype(self.dtype)),
            _DONE: ((self.pictures,), np.dtype(np.uint64)),
        }

    @property
    def total_bytes(self) -> int:
        """Bytes of all arrays."""
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in self.arrays().values())


def token_shape(
    backbone: Backbone,
    options: ImageOptions,
    image_size: tuple[int, int],
    pictures: int,
    dtype: TokenType = "float32",
) -> StoreShape:
    """Return the size of a transformer's tokens for pixels of (height, width)."""
    spec = backbone.spec
    rows, columns = (side // spec.vision.patch_size for side in image_size)
    return StoreShape(
        pictures=pictures,
        layers=options.token_keys(spec.vision.layers),
        grid=(rows, columns),
        channels=spec.vision.width if options.raw_tokens else spec.embed_dim,
        class_channels=spec.embed_dim,
        dtype=dtype,
    )


class TokenStore:
    """Tokens of a list of pictures. Open it with `open_store`."""

    def __init__(self, folder: Path, shape: StoreShape) -> None:
        self.folder, self.shape = folder, shape
        self._written: dict[int, int] = {}  # row -> CRC, not yet counted as done
        self._checked = np.zeros(shape.pictures, dtype=bool)
        self._classes = open_memmap(folder / _CLASSES, mode="r+")
        self._patches = open_memmap(folder / _PATCHES, mode="r")
        self._done = open_memmap(folder / _DONE, mode="r+")
        self._patch_file = (folder / _PATCHES).open("r+b")

    def missing(self) -> list[int]:
        """Return the numbers of the pictures whose tokens are not there yet."""
        return np.flatnonzero(np.asarray(self._done) == 0).tolist()

    def write(self, rows: Sequence[int], features: ImageFeatures) -> None:
        """Write the tokens of some pictures, in the store's type; `commit` makes them count.

        Raises:
            FapromptError: the disk is full.
        """
        classes = features.class_token.cpu().numpy()
        layers = [tokens.cpu().numpy() for tokens in features.patch_tokens.values()]
        for place, row in enumerate(rows):
            tokens = [layer[place] for layer in layers]
            self._write_patches(row, tokens)
            self._classes[row] = classes[place]
            self._written[row] = _checksum(classes[place], tokens)

    def _write_patches(self, row: int, tokens: Sequence[np.ndarray]) -> None:
        """Write through the file, where a full disk is an error; in a memory map it is a crash."""
        start: int = self._patches.offset
        try:
            for layer, each in enumerate(tokens):
                place = layer * self.shape.pictures + row
                self._patch_file.seek(start + place * each.nbytes)
                self._patch_file.write(np.ascontiguousarray(each).data)
            self._patch_file.flush()
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    def commit(self) -> None:
        """Flush the written tokens to the disk, then count their pictures as done."""
        if not self._written:
            return
        os.fsync(self._patch_file.fileno())
        self._classes.flush()
        for row, checksum in self._written.items():
            self._done[row] = _DONE_BIT + checksum
        self._done.flush()
        self._written.clear()

    def read(self, rows: Sequence[int], device: torch.device | str = "cpu") -> ImageFeatures:
        """Return the features of some pictures in that order, float32, on a device.

        Raises:
            FapromptError: tokens changed since they were written; checked once per picture.
        """
        index = list(rows)
        classes = np.array(self._classes[index])
        layers = [np.array(layer[index]) for layer in self._patches]
        for place, row in enumerate(index):
            if not self._checked[row]:
                self._check(row, classes[place], [layer[place] for layer in layers])
        patches = {
            key: torch.from_numpy(tokens).to(device).float()
            for key, tokens in zip(self.shape.layers, layers, strict=True)
        }
        return ImageFeatures(torch.from_numpy(classes).to(device), patches, self.shape.grid)

    def close(self) -> None:
        """Commit and close the files; Windows removes no folder with open ones."""
        self.commit()
        self._patch_file.close()
        del self._classes, self._patches, self._done

    def _check(self, row: int, class_token: np.ndarray, layers: list[np.ndarray]) -> None:
        if int(self._done[row]) != _DONE_BIT + _checksum(class_token, layers):
            raise FapromptError(
                f"The feature cache {self.folder} is damaged at picture {row}; "
                "delete the folder and run again."
            )
        self._checked[row] = True


def open_store(folder: Path, recipe: TokenRecipe, shape: StoreShape) -> TokenStore:
    """Open the store of a recipe; it is created if it is new or has lost a file.

    Raises:
        FapromptError: the folder holds something else, or cannot be written.
    """
    if folder.exists() and any(folder.iterdir()):
        _refuse_foreign(folder, recipe.key)
        if not _is_whole(folder, shape):
            shutil.rmtree(folder)
    if not folder.exists() or not any(folder.iterdir()):
        about = {"format": FORMAT, "key": recipe.key, "shape": asdict(shape), **recipe.about()}
        _create(folder, about, shape)
    return TokenStore(folder, shape)


def _refuse_foreign(folder: Path, key: str) -> None:
    try:
        index = read_json(folder / _INDEX)
        found = index.get("key") if isinstance(index, dict) else None
    except (OSError, ValueError):
        found = None
    if found != key:
        what = "is no feature cache" if found is None else f"is the feature cache of {found[:12]}"
        raise FapromptError(
            f"{folder} {what}, wanted that of {key[:12]}; delete it or choose another cache_dir."
        )


def _is_whole(folder: Path, shape: StoreShape) -> bool:
    try:
        found = {name: open_memmap(folder / name, mode="r") for name in shape.arrays()}
    except (OSError, ValueError):
        return False
    return {name: (a.shape, a.dtype) for name, a in found.items()} == shape.arrays()


def _create(folder: Path, index: dict[str, Any], shape: StoreShape) -> None:
    """Create files of the final size in a draft folder, then move it into place.

    The small files are written whole, because a full disk would crash a memory map later. The
    large one is sparse.
    """
    draft = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        for name, (size, dtype) in shape.arrays().items():
            if name == _PATCHES:
                open_memmap(draft / name, mode="w+", dtype=dtype, shape=size)
            else:
                np.save(draft / name, np.zeros(size, dtype))
        write_atomically(draft / _INDEX, json.dumps(index, indent=2).encode())
        if folder.exists():
            folder.rmdir()  # it is empty
        os.replace(draft, folder)
    except OSError as error:
        if not (folder / _INDEX).is_file():  # otherwise another run was faster
            raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _unwritable(folder: Path, error: OSError) -> FapromptError:
    return FapromptError(
        f"The feature cache {folder} could not be written ({error}); "
        "choose another cache_dir, or set cache=off."
    )


def _checksum(class_token: np.ndarray, layers: Iterable[np.ndarray]) -> int:
    value = zlib.crc32(np.ascontiguousarray(class_token).data)
    for tokens in layers:
        value = zlib.crc32(np.ascontiguousarray(tokens).data, value)
    return value
