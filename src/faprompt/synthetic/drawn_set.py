"""Drawn pictures with masks: a batch in memory, or a set on disk in the layout of MVTec AD."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from faprompt.errors import DatasetError
from faprompt.files import write_atomically
from faprompt.synthetic.canvas import Canvas
from faprompt.synthetic.kinds import KindSet, ObjectKind, defects_of, objects_of
from faprompt.synthetic.scene import damage, paint, photograph, turn_over
from faprompt.work import LOCK_NAME, ProgressCallback, no_progress

LEAST_SIZE = 32
GENERATOR_VERSION = "1"  # rises whenever the same seed draws other pictures
LICENSE = """These pictures and masks were drawn by a program; no photograph was used.

They are dedicated to the public domain under CC0 1.0 Universal:
https://creativecommons.org/publicdomain/zero/1.0/
"""


@dataclass(frozen=True, slots=True)
class DrawnBatch:
    """Drawn pictures and what they show."""

    images: Tensor  # (B, 3, size, size) float32 in 0..1
    masks: Tensor  # (B, size, size) bool, True on the defect
    labels: Tensor  # (B,) int64, 1 with a defect
    object_kinds: tuple[str, ...]
    defect_kinds: tuple[str, ...]  # "" for normal pictures


@dataclass(frozen=True, slots=True)
class Plan:
    """What one picture of a batch shows."""

    kind: ObjectKind
    thing: int  # pictures with the same number show the very same thing
    defect: str  # "" for normal
    grey: bool


@torch.no_grad()
def draw_plans(plans: Sequence[Plan], *, size: int, host: random.Random) -> DrawnBatch:
    """Draw planned pictures of `size` x `size` pixels; `host` decides everything random."""
    host.getrandbits(62)  # seeds captions, which are written elsewhere
    generator = torch.Generator().manual_seed(host.getrandbits(62))
    images = torch.empty(len(plans), 3, size, size)
    masks = torch.zeros(len(plans), size, size, dtype=torch.bool)
    groups: dict[tuple[str, bool], list[int]] = {}  # drawn together
    for row, plan in enumerate(plans):
        groups.setdefault((plan.kind.name, plan.grey), []).append(row)
    for rows in groups.values():
        index = torch.tensor(rows)
        pictures, masks[index] = _draw_group([plans[row] for row in rows], size, generator, host)
        images[index] = pictures.expand(-1, 3, -1, -1)
    return DrawnBatch(
        images=images,
        masks=masks,
        labels=torch.tensor([int(bool(plan.defect)) for plan in plans]),
        object_kinds=tuple(plan.kind.name for plan in plans),
        defect_kinds=tuple(plan.defect for plan in plans),
    )


def _draw_group(
    group: Sequence[Plan], size: int, generator: torch.Generator, host: random.Random
) -> tuple[Tensor, Tensor]:
    """Pictures (n, c, size, size) and masks of one kind of thing, all grey or all coloured."""
    kind, channels = group[0].kind, 1 if group[0].grey else 3
    things = list(dict.fromkeys(plan.thing for plan in group))
    canvas = Canvas(len(things), size, generator=generator, host=host, channels=channels)
    content = paint(canvas, kind)
    if len(things) < len(group):
        which = torch.tensor([things.index(plan.thing) for plan in group])
        canvas, content = canvas.take(which), content.take(which)
    damaged, masks = damage(canvas, content, [plan.defect for plan in group])
    scan = kind.sort == "scan"
    pictures, masks = turn_over(canvas, damaged, masks, upright=scan)
    return photograph(canvas, pictures, even=scan), masks


def write_dataset(
    folder: str | Path,
    *,
    kinds: KindSet,
    count: int,
    size: int = 256,
    seed: int,
    progress: ProgressCallback = no_progress,
) -> Path:
    """Draw a labelled set with masks into a folder; about half of the pictures are normal.

    The layout is MVTec AD's, with `LICENSE.txt` and, last of all, `synthetic.json` with the seed
    and the counts. Each file appears whole or not at all.

    Args:
        folder: created if it does not exist; it must be empty. It is returned.
        kinds: see `objects_of`.
        count: pictures in all, spread evenly over the kinds of things; at least 2. With fewer
            than two for each kind, only the first kinds are drawn.
        size: side in pixels, at least 32.
        seed: the same seed draws the same set.
        progress: called after each picture with the folder's name, pictures done and in all.

    Raises:
        DatasetError: the folder is not empty, or is a file.
        ValueError: a count, a size or a set out of range.
    """
    root = Path(folder)
    things = _shares(objects_of(kinds), count)
    if size < LEAST_SIZE:
        raise ValueError(f"size should be at least {LEAST_SIZE} pixels, got {size}.")
    claim_folder(root)
    counts: dict[str, dict[str, int]] = {}
    done = 0
    for kind, share in things:
        seen: Counter[str] = Counter()
        for defect, image, mask in _pictures(kind, share, kinds=kinds, size=size, seed=seed):
            name = slug(defect) or "good"
            number = f"{seen[defect]:03d}"
            write_png(root / slug(kind.name) / "test" / name / f"{number}.png", image)
            if defect:
                masks = root / slug(kind.name) / "ground_truth" / name
                write_png(masks / f"{number}_mask.png", mask.astype("uint8") * 255)
            seen[defect] += 1
            done += 1
            progress(root.name, done, count)
        counts[slug(kind.name)] = {slug(name) or "good": seen[name] for name in sorted(seen)}
    write_file(root / "LICENSE.txt", LICENSE.encode())
    facts = {"generator": GENERATOR_VERSION, "kinds": kinds, "seed": seed, "size": size}
    record = {**facts, "count": count, "license": "CC0-1.0", "counts": counts}
    write_file(root / "synthetic.json", (json.dumps(record, indent=2) + "\n").encode())
    return root


def _shares(things: tuple[ObjectKind, ...], count: int) -> list[tuple[ObjectKind, int]]:
    """Return kinds of things with their number of pictures, at least 2 each."""
    if count < 2:
        raise ValueError(f"count should be at least 2, one normal and one not, got {count}.")
    used = things[: min(len(things), count // 2)]
    each, rest = divmod(count, len(used))
    return [(kind, each + (place < rest)) for place, kind in enumerate(used)]


def claim_folder(root: Path) -> None:
    """Create the folder of a set, or refuse one that is not empty.

    Raises:
        DatasetError: the folder holds files, or is a file.
    """
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
    fitting = [defect.name for defect in defects_of(kinds) if defect.fits(kind)]
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


def slug(name: str) -> str:
    """Return the folder name of a kind."""
    return name.replace(" ", "_")


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W) or (H, W, 3) uint8 as PNG; the folder is created."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    write_file(path, buffer.getvalue())


def write_file(path: Path, data: bytes) -> None:
    """Write a file atomically; its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)
