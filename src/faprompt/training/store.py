"""Image tokens on disk: one folder per training set, memory-mapped for reading.

    index.json          what the tokens are and the key they belong to
    class_tokens.f32    (pictures, D)
    patch_tokens.f32    (layers, pictures, N, D or the tower's width); .f16 where halved
    done.u64            per picture: 0 while missing, else 2^32 + CRC-32 of its tokens

A picture counts as done once its tokens lie on the disk, so an interrupted filling goes on
where it stopped, and two runs that fill the same folder at once write the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faprompt.config import read_json
from faprompt.errors import FapromptError
from faprompt.files import write_atomically

FORMAT = 1  # part of every key: raise it when reading or encoding changes the tokens

_INDEX, _CLASS, _DONE = "index.json", "class_tokens.f32", "done.u64"
_DONE_BIT = 1 << 32
_PATCH_FILES = {"float32": "patch_tokens.f32", "float16": "patch_tokens.f16"}


@dataclass(frozen=True, slots=True)
class StoreShape:
    """How large a store is. `layers` are blocks of the tower, `patches` is rows x columns."""

    pictures: int
    layers: tuple[int, ...]
    patches: int
    channels: int  # of the patch tokens
    dtype: str = "float32"  # of the patch tokens; class tokens are always float32
    class_channels: int = 0  # of the class token; 0 for as many as the patch tokens have

    @property
    def class_bytes(self) -> int:
        """Bytes of one picture's class token."""
        return 4 * (self.class_channels or self.channels)

    @property
    def row_bytes(self) -> int:
        """Bytes of one picture."""
        patch_bytes = np.dtype(self.dtype).itemsize * len(self.layers) * self.patches
        return self.class_bytes + self.channels * patch_bytes

    @property
    def total_bytes(self) -> int:
        """Bytes of all pictures."""
        return self.pictures * self.row_bytes

    def file_bytes(self) -> dict[str, int]:
        """File name -> exact size."""
        class_bytes = self.pictures * self.class_bytes
        return {
            _CLASS: class_bytes,
            _PATCH_FILES[self.dtype]: self.total_bytes - class_bytes,
            _DONE: self.pictures * 8,
        }


class TokenStore:
    """The tokens of one training set. Open it with `open_store`."""

    def __init__(self, folder: Path, shape: StoreShape) -> None:
        self.folder = folder
        self.shape = shape
        self._written: dict[int, int] = {}  # row -> CRC, not yet counted as done
        self._checked = np.zeros(shape.pictures, dtype=bool)
        s = shape
        patch_file = folder / _PATCH_FILES[s.dtype]
        self._classes = np.memmap(
            folder / _CLASS, np.float32, "r+", shape=(s.pictures, s.class_bytes // 4)
        )
        self._patches = np.memmap(
            patch_file, s.dtype, "r", shape=(len(s.layers), s.pictures, s.patches, s.channels)
        )
        self._done = np.memmap(folder / _DONE, np.uint64, "r+", shape=(s.pictures,))
        self._patch_file = patch_file.open("r+b")

    def missing(self) -> list[int]:
        """Pictures whose tokens are not there yet."""
        return np.flatnonzero(np.asarray(self._done) == 0).tolist()

    def write(self, row: int, class_token: np.ndarray, patch_tokens: np.ndarray) -> None:
        """Put the tokens of one picture in place; `commit` makes them count.

        Args:
            row: which picture.
            class_token: (D,) float32.
            patch_tokens: (layers, N, D) of the store's dtype.

        Raises:
            FapromptError: the disk is full.
        """
        layer_bytes = patch_tokens[0].nbytes
        try:
            for layer, tokens in enumerate(patch_tokens):
                self._patch_file.seek((layer * self.shape.pictures + row) * layer_bytes)
                self._patch_file.write(np.ascontiguousarray(tokens).data)
            self._patch_file.flush()
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        self._classes[row] = class_token
        self._written[row] = _checksum(class_token, patch_tokens)

    def commit(self) -> None:
        """Flush what was written to the disk, then count it as done."""
        if not self._written:
            return
        os.fsync(self._patch_file.fileno())
        self._classes.flush()
        for row, checksum in self._written.items():
            self._done[row] = _DONE_BIT + checksum
        self._done.flush()
        self._written.clear()

    def read(self, rows: Sequence[int]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Copies of some pictures' tokens: (B, D) float32, and per layer (B, N, D).

        Raises:
            FapromptError: tokens changed since they were written; checked once per picture.
        """
        index = list(rows)
        classes = np.array(self._classes[index])
        patches = [np.array(layer[index]) for layer in self._patches]
        for place, row in enumerate(index):
            if not self._checked[row]:
                self._check(row, classes[place], [layer[place] for layer in patches])
        return classes, patches

    def close(self) -> None:
        """Commit and let go of the files."""
        self.commit()
        self._patch_file.close()

    def _check(self, row: int, class_token: np.ndarray, layers: list[np.ndarray]) -> None:
        if int(self._done[row]) != _DONE_BIT + _checksum(class_token, layers):
            raise FapromptError(
                f"The feature cache {self.folder} is damaged at picture {row}; "
                "delete the folder and run again."
            )
        self._checked[row] = True


def open_store(folder: Path, key: str, shape: StoreShape, about: dict[str, Any]) -> TokenStore:
    """The store of this key, new, half filled or full. One that lost a file is made anew.

    Args:
        folder: where it lies or shall lie.
        key: what the tokens depend on, as a hash.
        shape: its size.
        about: told in index.json, for people.

    Raises:
        FapromptError: the folder holds something else, or cannot be written.
    """
    if folder.exists() and any(folder.iterdir()):
        _refuse_foreign(folder, key)
        if not _is_whole(folder, shape):
            shutil.rmtree(folder)
    if not folder.exists() or not any(folder.iterdir()):
        _create(folder, {"format": FORMAT, "key": key, "shape": asdict(shape), **about}, shape)
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
    sizes = shape.file_bytes()
    return all((folder / n).is_file() and (folder / n).stat().st_size == sizes[n] for n in sizes)


def _create(folder: Path, index: dict[str, Any], shape: StoreShape) -> None:
    """Files of the final size, moved into place as a whole folder.

    Only the large one has holes: it is written through the file, where a full disk is an
    error; the two small ones are written through maps, where it would be a crash.
    """
    draft = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        for name, size in shape.file_bytes().items():
            with (draft / name).open("wb") as file:
                if name in (_CLASS, _DONE):
                    file.write(bytes(size))
                else:
                    file.truncate(size)
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
        "choose another cache_dir, or cache=off to do without."
    )


def _checksum(class_token: np.ndarray, layers: Sequence[np.ndarray] | np.ndarray) -> int:
    value = zlib.crc32(np.ascontiguousarray(class_token).data)
    for tokens in layers:
        value = zlib.crc32(np.ascontiguousarray(tokens).data, value)
    return value
