"""Draw defects of a chosen size and strength onto pictures of a user, with masks.

A maker of `defects` draws on a square window around a place of the picture, and only the pixels
of the defect are pasted back.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from faprompt.errors import ConfigError
from faprompt.synthetic.defect_shapes import DefectShape, fit_shape, longest_extent, pool, run_maker
from faprompt.synthetic.fields import mix, soften
from faprompt.synthetic.painting import LEAST_ALPHA, Content

ONTO_KINDS = (
    "scratch", "crack", "pore", "stain", "dent", "contamination", "missing part",
    "colour change", "hole", "tear", "burn", "thread",
)  # fmt: skip
LEAST_DEFECT_PX = 3.0
_TRIES = 60  # shapes and places
_VISIBLE = 0.06  # least mean change inside the mask at strength 1, of the full range
_VISIBLE_ROUGH = 0.75  # or this many local deviations, but at most twice as much as above
_PLACES = 24  # candidates, to avoid an empty background


@dataclass(frozen=True, slots=True, eq=False)
class DrawnDefect:
    """A picture with one drawn defect."""

    image: np.ndarray  # (H, W, 3) uint8
    mask: np.ndarray  # (H, W) bool, True on the defect
    kind: str
    size_px: float  # wanted longest extent of the mask, in pixels of the picture
    strength: float  # 0..1; 1 is the full contrast of the kind


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """The full change that a defect makes in a box of a picture."""

    rows: slice
    columns: slice
    change: np.ndarray  # (height, width, 3) float32 in levels of 0..255
    mask: np.ndarray  # (height, width) bool

    def apply(self, image: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the damaged picture and its mask."""
        damaged, mask = image.copy(), np.zeros(image.shape[:2], bool)
        part = image[self.rows, self.columns] + self.change * np.float32(strength)
        damaged[self.rows, self.columns] = part.round().clip(0, 255)
        mask[self.rows, self.columns] = self.mask
        return damaged, mask


def draw_defect(
    image: np.ndarray,
    kind: str,
    *,
    size_px: float,
    strength: float,
    seed: int,
    keep_out: np.ndarray | None = None,
) -> DrawnDefect:
    """Draw one defect onto a picture, at a random place that is no empty background.

    Shape, place and colour depend on `seed` and `kind` alone, as far as size and picture allow,
    so that sizes and strengths can be compared. Grey pictures stay grey.

    Args:
        image: (H, W, 3) uint8 RGB; it is not changed.
        kind: one of `ONTO_KINDS`.
        size_px: longest extent of the mask in any direction, in pixels: at least 3, at most the
            shorter side of the picture. The drawn extent differs by at most 10 % or one pixel.
        strength: above 0 and at most 1; share of the full contrast of the kind. The mask does not
            depend on it.
        seed: the same seed draws the same pixels.
        keep_out: (H, W) bool; no pixel changes where it is True.

    Raises:
        ConfigError: kind, size or strength is out of range, the size does not fit the picture,
            `keep_out` leaves no place for it, or no defect of this kind can be seen on it.
        ValueError: `image` or `keep_out` has another shape or type.

    Source:
        Ours.
    """
    check_design([kind], [size_px], [strength])
    change = _draw_change(image, kind, size_px, seed, keep_out)
    return DrawnDefect(*change.apply(image, strength), kind, size_px, strength)


def draw_defects(
    images: Sequence[np.ndarray],
    kinds: Sequence[str],
    sizes_px: Sequence[float],
    strengths: Sequence[float],
    *,
    per_cell: int,
    seed: int,
    keep_out: Sequence[np.ndarray | None] = (),
) -> Iterator[tuple[int, DrawnDefect]]:
    """Draw a design of every kind x size x strength and yield picture numbers and defects.

    The pictures are used in turn; those smaller than a size are passed over for that size. All
    strengths of one kind, size and repeat show the same defect on the same picture.

    Args:
        images: (H, W, 3) uint8 each; a sequence that reads files when it is indexed works too.
        kinds: names of `ONTO_KINDS`.
        sizes_px: longest extents in pixels; see `draw_defect`.
        strengths: shares of the full contrast.
        per_cell: number of defects for each kind, size and strength, at least 1.
        seed: the same seed draws the same pictures.
        keep_out: () or one item for each picture; see `draw_defect`.

    Raises:
        ConfigError: no picture is as large as a size; else as `draw_defect`.
        ValueError: there is no picture, `per_cell` is below 1, or `keep_out` has another length.
    """
    check_design(kinds, sizes_px, strengths)
    if per_cell < 1 or not len(images):
        raise ValueError(f"Got {len(images)} pictures and per_cell={per_cell}; give at least 1.")
    if len(keep_out) not in (0, len(images)):
        raise ValueError(f"Got {len(keep_out)} keep_out for {len(images)} pictures.")
    turn = 0
    for kind in kinds:
        for size_px in sizes_px:
            for repeat in range(per_cell):
                turn, image = _next_fitting(images, turn, size_px)
                barred = keep_out[turn] if keep_out else None
                change = _draw_change(image, kind, size_px, own_seed(seed, repeat), barred)
                for strength in strengths:
                    drawn = change.apply(image, strength)
                    yield turn, DrawnDefect(*drawn, kind, size_px, strength)
                turn = (turn + 1) % len(images)


def own_seed(seed: int, number: int) -> int:
    """Return a seed of its own for one of several drawings."""
    return random.Random(f"faprompt-onto-{seed}-{number}").getrandbits(62)


def _next_fitting(
    images: Sequence[np.ndarray], turn: int, size_px: float
) -> tuple[int, np.ndarray]:
    """Return number and pixels of the next picture that is as large as the size."""
    for number in (*range(turn, len(images)), *range(turn)):
        image = images[number]
        if size_px <= min(image.shape[:2]):
            return number, image
    raise ConfigError(
        f"None of {len(images)} pictures is as large as a defect of {size_px:g} px; "
        "choose smaller sizes, or larger pictures."
    )


def check_design(
    kinds: Sequence[str], sizes_px: Sequence[float], strengths: Sequence[float]
) -> None:
    """Check what is to be drawn.

    Raises:
        ConfigError: an empty list, a kind that is not in `ONTO_KINDS`, a size below 3 px, or a
            strength that is not above 0 and at most 1; the message lists all of them.
    """
    lists = {"kind": kinds, "size": sizes_px, "strength": strengths}
    wrong = [f"no {name}" for name, values in lists.items() if not len(values)]
    wrong += [f"kind {kind!r}" for kind in kinds if kind not in ONTO_KINDS]
    wrong += [f"size {size:g} px" for size in sizes_px if not LEAST_DEFECT_PX <= size < math.inf]
    wrong += [f"strength {value:g}" for value in strengths if not 0 < value <= 1]
    if wrong:
        raise ConfigError(
            f"Defects cannot be drawn with {', '.join(wrong)}; sizes should be at least "
            f"{LEAST_DEFECT_PX:g} px, strengths above 0 and at most 1, and kinds some of: "
            f"{', '.join(ONTO_KINDS)}."
        )


def _check_picture(image: np.ndarray, size_px: float, keep_out: np.ndarray | None) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"image should be (H, W, 3) uint8, got {image.shape} {image.dtype}.")
    height, width = image.shape[:2]
    if size_px > min(height, width):
        raise ConfigError(
            f"A defect of {size_px:g} px does not fit a picture of {width} x {height} pixels; "
            "choose a size of at most its shorter side."
        )
    if keep_out is not None and (keep_out.shape != (height, width) or keep_out.dtype != bool):
        raise ValueError(
            f"keep_out should be ({height}, {width}) bool, got {keep_out.shape} {keep_out.dtype}."
        )


@torch.no_grad()
def _draw_change(
    image: np.ndarray, kind: str, size_px: float, seed: int, keep_out: np.ndarray | None
) -> _Change:
    """Try shapes and places until one fits and can be seen."""
    _check_picture(image, size_px, keep_out)
    channels = 1 if _is_grey(image) else 3
    placed = False
    for attempt in range(_TRIES):
        key = f"faprompt-onto-{seed}-{kind}-{attempt}"
        shape = fit_shape(kind, size_px, key)
        if shape is None:
            continue
        corner = _choose_place(image, shape, keep_out, random.Random(f"{key}-place"))
        if corner is None:
            continue
        placed = True
        change = _change_at(image, kind, shape, corner, key, channels)
        if change is not None:
            return change
    height, width = image.shape[:2]
    reason = "it could not be seen" if placed else "there was no free place for it"
    raise ConfigError(
        f"No {kind} of {size_px:g} px could be drawn onto a picture of {width} x {height} pixels: "
        f"{reason} in {_TRIES} tries. Choose another size or kind, or keep out less."
    )


def _is_grey(image: np.ndarray) -> bool:
    """Return whether a picture has no colour beyond the noise of its compression."""
    step = max(min(image.shape[:2]) // 64, 1)
    sample = image[::step, ::step].astype(np.int16)
    return bool(np.ptp(sample, axis=-1).mean() < 3)


def _choose_place(
    image: np.ndarray, shape: DefectShape, keep_out: np.ndarray | None, host: random.Random
) -> tuple[int, int] | None:
    """Return row and column of the defect's box in the picture; None where it fits nowhere.

    An empty background is avoided. A place is called empty if its box is flat and as bright as
    the border of the picture, compared with the other ones of 24 random places. Where more
    than 80 % of them are empty, the rule is not used: the picture shows one even surface.
    """
    places = _free_places(image, shape, keep_out, host)
    if not places:
        return None
    border = [image[[0, -1]].reshape(-1, 3), image[:, [0, -1]].reshape(-1, 3)]
    usual = float(np.median(np.concatenate(border).mean(-1)))
    step = max(min(shape.height, shape.width) // 16, 1)
    boxes = [
        image[y : y + shape.height : step, x : x + shape.width : step].mean(-1) for y, x in places
    ]
    quarters = [np.percentile(box, (25, 50, 75)) for box in boxes]
    busy = np.array([high - low + abs(middle - usual) for low, middle, high in quarters])
    good = busy >= 0.15 * busy.max()
    return places[int(good.argmax())] if good.mean() > 0.2 else places[0]


def _free_places(
    image: np.ndarray, shape: DefectShape, keep_out: np.ndarray | None, host: random.Random
) -> list[tuple[int, int]]:
    """Draw places where the defect's box lies in the picture and touches no `keep_out` pixel."""
    down, across = image.shape[0] - shape.height + 1, image.shape[1] - shape.width + 1
    if down < 1 or across < 1:
        return []
    places = [(host.randrange(down), host.randrange(across)) for _ in range(_PLACES)]
    if keep_out is None:
        return places
    high, wide = shape.height, shape.width
    lucky = [(y, x) for y, x in places if not keep_out[y : y + high, x : x + wide].any()]
    if lucky:
        return lucky
    free = np.flatnonzero(_free_corners(keep_out, high, wide))  # slow on large pictures
    if not len(free):
        return []
    return [divmod(int(free[host.randrange(len(free))]), across) for _ in range(_PLACES)]


def _free_corners(keep_out: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return where the upper left corner of a box may lie so that it keeps out of the mask."""
    total = np.pad(keep_out.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32), ((1, 0), (1, 0)))
    rows = total[height:] - total[:-height]
    return rows[:, width:] == rows[:, :-width]


def _change_at(
    image: np.ndarray,
    kind: str,
    shape: DefectShape,
    corner: tuple[int, int],
    key: str,
    channels: int,
) -> _Change | None:
    """Draw the defect on the window around its place; None where it could hardly be seen."""
    y, x = corner
    window = _window(image, y - shape.top, x - shape.left, shape.window)
    box = slice(shape.top, shape.top + shape.height), slice(shape.left, shape.left + shape.width)
    margin = max(shape.height, shape.width, 16) // 2
    around = image[
        max(y - margin, 0) : y + shape.height + margin,
        max(x - margin, 0) : x + shape.width + margin,
    ].mean(-1)
    clean = torch.from_numpy(window[..., :channels].copy()).permute(2, 0, 1).float() / 255
    clean = clean.repeat_interleave(shape.fine, 1).repeat_interleave(shape.fine, 2)[None]
    surface, ground = clean, torch.ones(1, *clean.shape[-2:])
    if kind == "pore":  # the maker draws small ones, which hide the texture
        blurred = soften(clean, max(round(longest_extent(shape.mask) * shape.fine / 2), 1))
        surface = mix(clean, blurred, shape.alpha)
    content = Content(surface, ground, _behind(clean, random.Random(f"{key}-behind")))
    level, rough = float(around.mean()) / 255, float(around.std()) / 255
    changed, alpha = run_maker(kind, content, key, level=level, rough=rough)
    assert torch.allclose(alpha, shape.alpha, atol=1e-2), f"{kind}: shape depends on the picture"
    change = (changed.clamp(0, 1) - clean[0]) * (shape.alpha > LEAST_ALPHA)
    levels = (pool(change, shape.fine) * 255).permute(1, 2, 0).expand(-1, -1, 3).numpy()
    rows, columns = slice(y, y + shape.height), slice(x, x + shape.width)
    mask, levels = shape.mask[box], levels[box]
    least = max(_VISIBLE, min(_VISIBLE_ROUGH * rough, 2 * _VISIBLE))
    if np.abs(levels).max(-1)[mask].mean() < 255 * least:
        return None
    return _Change(rows, columns, levels, mask)


def _window(image: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    """Cut a square out of the picture, mirrored at its borders."""

    def mirrored(start: int, length: int) -> np.ndarray:
        places = np.arange(start, start + side) % (2 * length)
        return np.minimum(places, 2 * length - 1 - places)

    height, width = image.shape[:2]
    return image[mirrored(top, height)[:, None], mirrored(left, width)]


def _behind(clean: Tensor, host: random.Random) -> Tensor:
    """Return a darker even ground with the grain of the picture, seen where a part is missing."""
    grain = (clean - soften(clean, 1)).clamp(-0.03, 0.03)
    return clean.mean((2, 3), keepdim=True) * host.uniform(0.35, 0.75) + grain
