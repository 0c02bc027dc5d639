"""Picture files written byte by byte, for what Pillow itself would not write."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

# Kinds of file that give back what was written, with the options of Pillow's save.
LOSSLESS = [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("BMP", {})]
LOSSLESS += [("WEBP", {"lossless": True})]


def encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as the bytes of a file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def colours(height: int = 24, width: int = 36, seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8 noise: no symmetry, every channel different."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixel."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 9) + b"IDAT"


def png_rgb16(values: np.ndarray, *, key: tuple[int, ...] = ()) -> bytes:
    """A 16-bit PNG of (H, W, C) uint16, which Pillow reads but does not write.

    C is 1 grey, 2 grey and alpha, 3 RGB, or 4 RGBA. `key` is the transparent grey or colour.
    """
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]]
    rows = np.ascontiguousarray(values, ">u2").view(np.uint8).reshape(len(values), -1)
    return png(rows, values.shape[1], bits=16, kind=kind, key=key)


def png(rows: np.ndarray, width: int, *, bits: int, kind: int, key: tuple[int, ...] = ()) -> bytes:
    """A PNG of packed rows (H, bytes) uint8; `kind` is PNG's colour type."""
    packed = b"".join(b"\x00" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0)
    chunks = [(b"IHDR", header)]
    if key:
        chunks.append((b"tRNS", struct.pack(f">{len(key)}H", *key)))
    out = b"\x89PNG\r\n\x1a\n"
    for name, data in (*chunks, (b"IDAT", zlib.compress(packed)), (b"IEND", b"")):
        out += struct.pack(">I", len(data)) + name + data
        out += struct.pack(">I", zlib.crc32(name + data))
    return out


def webp_header(width: int, height: int) -> bytes:
    """An extended WebP that claims a canvas and holds no picture."""
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + canvas


def tiff(
    data: bytes,
    *,
    width: int,
    height: int,
    bits: tuple[int, ...],
    sample_format: int,
    extra: tuple[tuple[int, int], ...] = (),
    order: str = "<",
    photometric: int | None = None,
) -> bytes:
    """An uncompressed TIFF of one strip, little-endian unless `order` is ">".

    `bits` per sample, `sample_format` 1 unsigned, 2 signed, 3 float; `extra` are further
    tags with one 16-bit value.
    """
    samples = len(bits)
    if photometric is None:
        photometric = 2 if samples > 2 else 1
    bits_at = 8 + len(data)
    tags = {
        256: (3, 1, width),
        257: (3, 1, height),
        258: (3, samples, bits_at if samples > 2 else bits[0]),
        259: (3, 1, 1),
        262: (3, 1, photometric),
        273: (4, 1, 8),
        277: (3, 1, samples),
        278: (3, 1, height),
        279: (4, 1, len(data)),
        339: (3, 1, sample_format),
    } | {tag: (3, 1, value) for tag, value in extra}
    table = struct.pack(f"{order}{samples}H", *bits)
    entries = b"".join(_entry(order, tag, *entry) for tag, entry in sorted(tags.items()))
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, bits_at + len(table))
    return head + data + table + struct.pack(f"{order}H", len(tags)) + entries + b"\x00" * 4


def _entry(order: str, tag: int, kind: int, count: int, value: int) -> bytes:
    """One tag: a single 16-bit value stands in the first half of its four bytes."""
    small = kind == 3 and count == 1
    body = struct.pack(f"{order}HH", value, 0) if small else struct.pack(f"{order}I", value)
    return struct.pack(f"{order}HHI", tag, kind, count) + body
