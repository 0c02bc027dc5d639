"""A drawn set on disk, in the layout of MVTec AD: one folder per kind of thing."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faprompt.errors import DatasetError
from faprompt.files import write_atomically
from faprompt.synthetic.draw import LEAST_SIZE, Plan, draw_plans
from faprompt.synthetic.kinds import KindSet, ObjectKind, defects_of, objects_of
from faprompt.work import LOCK_NAME, ProgressCallback, no_progress

if TYPE_CHECKING:
    import numpy as np

GENERATOR_VERSION = "1"  # rises whenever the same seed draws other pictures
IMAGE_FORMATS = {"png": {}, "bmp": {}, "jpg": {"format": "JPEG", "quality": 92, "subsampling": 0}}
LICENSE = """These pictures and masks were drawn by a program; no photograph was used.

They are dedicated to the public domain under CC0 1.0 Universal:
https://creativecommons.org/publicdomain/zero/1.0/
"""


def write_dataset(
    folder: str | Path,
    *,
    kinds: KindSet,
    count: int,
    size: int = 256,
    seed: int,
    image_format: str = "png",
    progress: ProgressCallback = no_progress,
) -> Path:
    """Draw a labelled set with masks; about half of the pictures of each kind are normal.

    Written are `<kind>/test/good/000.png`, `<kind>/test/<defect>/000.png`, the masks under
    `<kind>/ground_truth/<defect>/000_mask.png`, `LICENSE.txt` and, last of all, `synthetic.json`
    with the seed and the counts. Each file appears whole or not at all.

    Args:
        folder: made if it is not there; has to be empty.
        kinds: the family, see draw_batch.
        count: pictures in all, spread evenly over the kinds of things; at least 2. With fewer
            than two for each kind, the first kinds only are drawn.
        size: side in pixels, at least 32.
        seed: the same seed draws the same set.
        image_format: png, bmp or jpg; masks are always png.
        progress: called after each picture with the folder's name, pictures done and in all.

    Returns:
        The folder.

    Raises:
        DatasetError: the folder is not empty, or is a file.
        ValueError: a count, a size, a set or a format out of range.
    """
    root = Path(folder)
    things = _shares(objects_of(kinds), count)
    if size < LEAST_SIZE:
        raise ValueError(f"size should be at least {LEAST_SIZE} pixels, got {size}.")
    if image_format not in IMAGE_FORMATS:
        wanted = ", ".join(IMAGE_FORMATS)
        raise ValueError(f"image_format should be one of {wanted}, got {image_format!r}.")
    _claim(root)
    counts: dict[str, dict[str, int]] = {}
    done = 0
    for kind, share in things:
        seen: Counter[str] = Counter()
        for defect, image, mask in _pictures(kind, share, kinds=kinds, size=size, seed=seed):
            _write_picture(root / _slug(kind.name), defect, seen[defect], image, mask, image_format)
            seen[defect] += 1
            done += 1
            progress(root.name, done, count)
        counts[_slug(kind.name)] = {_slug(name) or "good": seen[name] for name in sorted(seen)}
    _write(root / "LICENSE.txt", LICENSE.encode())
    facts = {"generator": GENERATOR_VERSION, "kinds": kinds, "seed": seed, "size": size}
    record = {**facts, "count": count, "license": "CC0-1.0", "counts": counts}
    _write(root / "synthetic.json", (json.dumps(record, indent=2) + "\n").encode())
    return root


def _shares(things: tuple[ObjectKind, ...], count: int) -> list[tuple[ObjectKind, int]]:
    """Kinds of things with their number of pictures, at least 2 each."""
    if count < 2:
        raise ValueError(f"count should be at least 2, one normal and one not, got {count}.")
    used = things[: min(len(things), count // 2)]
    each, rest = divmod(count, len(used))
    return [(kind, each + (place < rest)) for place, kind in enumerate(used)]


def _claim(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise DatasetError(f"{root} is a file; name a folder to write the set into.")
    if root.is_dir() and any(path.name != LOCK_NAME for path in root.iterdir()):
        raise DatasetError(f"{root} is not empty; name a new or an empty folder for the set.")
    root.mkdir(parents=True, exist_ok=True)


def _pictures(
    kind: ObjectKind, share: int, *, kinds: KindSet, size: int, seed: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Defect ("" when normal), image (size, size, 3) uint8, mask (size, size) bool."""
    host = random.Random(f"faprompt-set-{seed}-{kind.name}")
    fitting = [defect.name for defect in defects_of(kinds) if defect.may_befall(kind)]
    host.shuffle(fitting)
    names = ["" if place % 2 == 0 else fitting[place // 2 % len(fitting)] for place in range(share)]
    for start in range(0, share, 16):
        plans = [
            Plan(kind, place, name, grey=host.random() >= kind.colourful)
            for place, name in enumerate(names[start : start + 16])
        ]
        batch = draw_plans(plans, size=size, host=host)
        images = (batch.images * 255).round().byte().permute(0, 2, 3, 1).numpy()
        yield from zip(batch.defect_kinds, images, batch.masks.numpy(), strict=True)


def _slug(name: str) -> str:
    return name.replace(" ", "_")


def _write_picture(
    folder: Path, defect: str, number: int, image: np.ndarray, mask: np.ndarray, ending: str
) -> None:
    kind = _slug(defect) or "good"
    _write(folder / "test" / kind / f"{number:03d}.{ending}", _encode(image, ending))
    if defect:
        path = folder / "ground_truth" / kind / f"{number:03d}_mask.png"
        _write(path, _encode(mask.astype("uint8") * 255, "png"))


def _encode(pixels: np.ndarray, ending: str) -> bytes:
    from PIL import Image

    options: dict[str, Any] = {"format": ending.upper(), **IMAGE_FORMATS[ending]}
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)
