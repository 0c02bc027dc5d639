"""Pixel values as a file stores them: wider than 8 bits, or multiplied by alpha.

Pillow keeps only the upper byte of 16-bit colours. Both bytes are read here by decoding the
file twice, once with each byte order: a decoder with the wrong order returns the
lower bytes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import IO

import numpy as np
from PIL import Image, ImageFile

from faprompt.errors import ImageReadError
from faprompt.imaging.formats import open_picture

_GREY_16 = ("I;16", "I;16B", "I;16L", "I;16N")
_GREY_STEP = {"L;2": 85, "L;4": 17}  # Pillow widens these PNG values to 8 bits, not their tRNS


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Pixel values of one picture and what is needed to show them."""

    values: np.ndarray  # (H, W) grey, (H, W, 3) RGB or (H, W, 4) CMYK; any integer or float type
    alpha: np.ndarray | None = None  # (H, W); bool (True is opaque), or the type of `values`
    bits: int | None = None  # bits per value by the file's header; None: those of the type
    white_is_zero: bool = False
    premultiplied: bool = False  # colours are already multiplied by alpha

    def upright(self, orientation: int) -> Samples:
        """Return the values turned by an EXIF orientation, 1 to 8."""
        alpha = None if self.alpha is None else upright(self.alpha, orientation)
        return replace(self, values=upright(self.values, orientation), alpha=alpha)


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an array (H, W, ...) by an EXIF orientation; values other than 2 to 8 change nothing.

    `ImageOps.exif_transpose` does not serve here: it turns Pillow pictures only, which hold
    neither 16-bit colours nor what tifffile reads, and fails on a broken EXIF table.

    Source: EXIF 2.3, tag 274.

    Example:
        >>> upright(np.array([[1, 2, 3]]), 6).tolist()
        [[1], [2], [3]]
    """
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array


def picture_samples(picture: Image.Image) -> Samples:
    """Return the values of any decoded Pillow picture but CIELAB; palettes and CMYK as RGB."""
    samples = wide_samples(picture)
    if samples is not None:
        return samples
    refuse_lab(picture)
    if picture.has_transparency_data:
        rgba = np.asarray(picture.convert("RGBA"))
        return Samples(rgba[..., :3], alpha=rgba[..., 3])
    return Samples(np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB")))


def wide_samples(picture: Image.Image) -> Samples | None:
    """Return the values of a Pillow picture that its 8-bit conversions would change, else None."""
    if picture.mode in _GREY_16:
        return _with_key(picture, np.asarray(picture))
    if picture.mode in ("I", "F"):
        return Samples(np.asarray(picture))
    if picture.mode in ("La", "RGBa"):
        stored = np.asarray(picture)
        values = stored[..., 0] if picture.mode == "La" else stored[..., :3]
        return Samples(values, alpha=stored[..., -1], premultiplied=True)
    return None


def _with_key(picture: Image.Image, values: np.ndarray) -> Samples:
    """Values with alpha 0 where they equal the transparent grey or colour of a PNG."""
    key = picture.info.get("transparency")
    if key is None:
        return Samples(values)
    other = values != key
    return Samples(values, alpha=other if values.ndim == 2 else other.any(axis=2))


def refuse_lab(picture: Image.Image) -> None:
    """Raise an `ImageReadError` for CIELAB colours, which need a colour profile."""
    if picture.mode == "LAB":
        raise ImageReadError("CIELAB colours are not read; convert the picture to RGB.")


def widen_key(picture: Image.Image) -> None:
    """Widen the transparent grey of a 2- or 4-bit PNG as Pillow widens its pixels."""
    step = _GREY_STEP.get(raw_mode(picture)) if picture.format == "PNG" else None
    if step and "transparency" in picture.info:
        picture.info["transparency"] *= step


def raw_mode(picture: Image.Image) -> str:
    """Return how Pillow will unpack a picture that is not decoded yet; "" once it is."""
    tiles = getattr(picture, "tile", None)
    if not tiles:
        return ""
    arguments = tiles[0][3]
    return arguments if isinstance(arguments, str) else str((arguments or [""])[0])


def read_colours(
    picture: ImageFile.ImageFile, stream: IO[bytes], *, max_pixels: int
) -> Samples | None:
    """Decode 16-bit or premultiplied colours with every bit; None where a picture has neither.

    The picture was opened from `stream` and is not decoded yet. A TIFF is returned upright.
    """
    raw = raw_mode(picture)
    plain = raw.replace("RGBa", "RGBA")  # unpack the stored values, do not divide by alpha
    if ";16" not in raw:
        if plain == raw:
            return None
        stored = _load(picture, plain)
        return Samples(stored[..., :3], alpha=stored[..., 3], premultiplied=True)
    if raw == "LA;16B":
        pairs = _load(picture, "RGBA").view(">u2")
        return Samples(pairs[..., 0], alpha=pairs[..., 1])
    if not raw.startswith("RGB"):
        return None
    values = _both_bytes(picture, plain, stream, max_pixels)
    if values.shape[2] == 4:
        return Samples(values[..., :3], alpha=values[..., 3], premultiplied=plain != raw)
    return _with_key(picture, values)


def _both_bytes(
    picture: ImageFile.ImageFile, raw: str, stream: IO[bytes], max_pixels: int
) -> np.ndarray:
    """(H, W, 3 or 4) uint16 of colours whose raw mode ends in ;16B, ;16L or ;16N (native)."""
    high, low = "B", "L"  # the names of the orders whose unpackers return each byte
    if raw[-1] == "L" or (raw[-1] == "N" and sys.byteorder == "little"):
        high, low = low, high
    values = _load(picture, raw[:-1] + high).astype(np.uint16)
    values <<= 8
    stream.seek(0)
    values |= _load(open_picture(stream, max_pixels=max_pixels), raw[:-1] + low)
    return values


def _load(picture: ImageFile.ImageFile, raw: str) -> np.ndarray:
    tiles = []
    for tile in picture.tile:
        more = tile.args[1:] if isinstance(tile.args, tuple) else None
        tiles.append(tile._replace(args=raw if more is None else (raw, *more)))
    picture.tile = tiles
    picture.load()
    return np.asarray(picture)
