"""Read and write safetensors files by numpy alone, so that a runtime needs no further package.

Source: the format's description in the README of huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_TYPES = {  # name in the file -> numpy's, little-endian
    "BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8",
    "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read name -> array of a safetensors file, and its metadata.

    Raises:
        OSError: the file cannot be read.
        ValueError, KeyError, TypeError, AttributeError, RecursionError: it is no such file, or
            its header contradicts itself or its length.
    """
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise ValueError("it is no safetensors file, or the end is missing")
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    arrays, data, filled = {}, memoryview(content)[8 + length :], 0
    for name, entry in header.items():
        kind = _TYPES.get(entry["dtype"])
        if kind is None:
            raise ValueError(f"{name} has the type {entry['dtype']}, which is not read here")
        shape, (start, stop) = entry["shape"], entry["data_offsets"]
        numbers = (*shape, start, stop)
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError(f"{name} has a shape or place that is no list of whole numbers")
        if stop > len(data) or stop - start != math.prod(shape) * np.dtype(kind).itemsize:
            raise ValueError(f"the place of {name} does not fit its shape or the file's length")
        arrays[name] = np.frombuffer(data[start:stop], kind).reshape(shape)
        filled += stop - start
    if filled != len(data):
        raise ValueError("tensors overlap, or parts of the file belong to none")
    return arrays, {str(key): str(value) for key, value in metadata.items()}


def to_bytes(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Return the content of a safetensors file; `read_arrays` and other readers read it.

    Raises:
        KeyError: an array of a type that the format has no name for here.
    """
    names = {np.dtype(kind): name for name, kind in _TYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    parts, end = [], 0
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0])):
        start, end = end, end + array.nbytes
        kind = names[array.dtype.newbyteorder("<")]
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": (start, end)}
        parts.append(array.astype(array.dtype.newbyteorder("<")).tobytes())
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that every array begins at a multiple of its item size
    return len(text).to_bytes(8, "little") + text + b"".join(parts)
