"""A labelled set drawn on the spot: two classes, two kinds of defect, odd sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from faprompt.data import Dataset
from faprompt.records import Sample
from tests.helpers import small

SIZES = ((60, 80), (56, 56), (47, 90))


def sample(folder: Path, class_name: str, kind: str, number: int, *, masked: bool = True) -> Sample:
    """One picture, brighter where it is damaged, and its mask."""
    height, width = SIZES[number % 3]
    seed = sum(map(ord, class_name + kind)) + number
    image = np.random.default_rng(seed).integers(40, 90, (height, width, 3), dtype=np.uint8)
    truth = np.zeros((height, width), np.uint8)
    if kind != "good":
        truth[10 + number : 30 + number, 12 : 35 + 3 * number] = 255
        image[truth > 0] = (230, 210, 40) if kind == "dent" else (20, 240, 30)
    path = folder / class_name / kind / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    mask_path = path.with_name(f"{number}_mask.png")
    if kind != "good" and masked:
        Image.fromarray(truth).save(mask_path)
    return Sample(
        image_path=path,
        label=int(kind != "good"),
        class_name=class_name,
        defect_type="" if kind == "good" else kind,
        mask_paths=(mask_path,) if kind != "good" and masked else (),
        has_pixel_label=True,
    )


def dataset(folder: Path, *, classes=("mug", "nut"), masked: bool = True) -> Dataset:
    """Per class: four good pictures, three dents, two chips."""
    samples = [
        sample(folder, name, kind, number, masked=masked)
        for name in classes
        for kind, count in (("good", 4), ("dent", 3), ("chip", 2))
        for number in range(count)
    ]
    return Dataset(name="toy", root=folder, samples=tuple(samples))


def detector(*, sigma_px=1.0):
    return small.detector("clip", sigma_px=sigma_px, use_class_names=False)
