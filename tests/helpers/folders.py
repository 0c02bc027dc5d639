"""Datasets drawn on the spot: tiny pictures in every layout the readers know."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from faprompt.data import Dataset

SIZE = (9, 14)  # height, width: unequal, so that exchanging them shows
LITTER = ("Thumbs.db", ".DS_Store", "desktop.ini", "readme.txt", "anim.gif", "noextension")
VISA_ROWS = ("candle", "pcb1")


def picture(
    path: Path,
    *,
    size: tuple[int, int] = SIZE,
    mode: str = "RGB",
    kind: str | None = None,
    turn: int | None = None,
) -> Path:
    """A noise picture that differs from every other by its path. `size` is (height, width)."""
    seed = zlib.crc32("/".join(path.parts[-4:]).encode())
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    options: dict[str, Any] = {}
    if turn is not None:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = turn
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).convert(mode).save(path, kind or _kind(path), **options)
    return path


def mask(
    path: Path, *, size: tuple[int, int] = SIZE, value: int = 255, kind: str | None = None
) -> Path:
    """A grey mask with a marked rectangle: rows 2 to 4, columns 3 to 7."""
    values = np.zeros(size, dtype=np.uint8)
    values[2:5, 3:8] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, kind or _kind(path))
    return path


def litter(root: Path) -> None:
    """Stray files in every folder, and the folder that macOS archives bring."""
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        for name in LITTER:
            (folder / name).write_bytes(b"stray")
        (folder / "._0001.png").write_bytes(b"stray")
    picture(root / "__MACOSX" / "stray.png")
    picture(root / ".cache" / "good" / "stray.png")


def pairs(
    images: Path,
    masks: Path,
    stems: Iterable[str],
    *,
    kinds: tuple[str, str] = (".png", ".png"),
    suffix: str = "",
) -> None:
    """Pictures and masks in two folders; `kinds` are their extensions, `suffix` the masks'."""
    for stem in stems:
        picture(images / f"{stem}{kinds[0]}")
        mask(masks / f"{stem}{suffix}{kinds[1]}")


def empty_pairs(images: Path, masks: Path, stems: Iterable[str], *, kind: str = ".png") -> None:
    """As many names as a real set has, without content: readers list files and open none."""
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    for stem in stems:
        (images / f"{stem}{kind}").touch()
        (masks / f"{stem}{kind}").touch()


def names(count: int, suffix: str = ".png", *, start: int = 0) -> list[str]:
    """`8.png`, `9.png`, `10.png`: numbers that text would sort otherwise."""
    return [f"{number}{suffix}" for number in range(start + 8, start + 8 + count)]


def mvtec_class(
    folder: Path,
    *,
    normal: Mapping[str, Sequence[str]],
    defects: Mapping[str, Sequence[str]],
    mask_name: str | None = "{stem}_mask.png",
    train: Sequence[str] = ("0.png",),
) -> None:
    """One class of an MVTec tree; `mask_name=None` leaves `ground_truth` away."""
    for kind, files in {**normal, **defects}.items():
        for name in files:
            picture(folder / "test" / kind / name)
    for name in train:
        picture(folder / "train" / next(iter(normal), "good") / name)
    if mask_name is not None:
        for kind, files in defects.items():
            for name in files:
                mask(folder / "ground_truth" / kind / mask_name.format(stem=Path(name).stem))


def visa_own(root: Path) -> None:
    """VisA as downloaded: `Data/Images`, masks of small class ids, the split files."""
    rows = ["object,split,label,image,mask"]
    for name in VISA_ROWS:
        data = root / name / "Data"
        for number, split in ((8, "train"), (9, "test"), (10, "test"), (11, "test")):
            image = picture(data / f"Images/Normal/{number:04d}.JPG")
            rows.append(f"{name},{split},normal,{image.relative_to(root).as_posix()},")
        for number in (8, 9):
            image = picture(data / f"Images/Anomaly/{number:03d}.JPG")
            truth = mask(data / f"Masks/Anomaly/{number:03d}.png", value=number)
            places = ",".join(path.relative_to(root).as_posix() for path in (image, truth))
            rows.append(f"{name},test,anomaly,{places}")
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(rows) + "\n")


def visa_reorganised(root: Path) -> None:
    """The tree that VisA's own script makes, below `1cls`."""
    for name in VISA_ROWS:
        mvtec_class(
            root / "1cls" / name,
            normal={"good": ["0009.JPG", "0010.JPG", "0011.JPG"]},
            defects={"bad": ["008.JPG", "009.JPG"]},
            mask_name="{stem}.png",
        )


def magnetic_tile(root: Path) -> None:
    """`MT_*/Imgs` with masks beside the pictures; normal tiles have blank ones."""
    for kind, count in (("Free", 4), ("Blowhole", 3), ("Crack", 2)):
        for name in names(count, ".jpg"):
            path = picture(root / f"MT_{kind}" / "Imgs" / f"exp1_num_{name}", mode="L")
            mask(path.with_suffix(".png"), value=0 if kind == "Free" else 255)


def yes_no(base: Path, *, normal: int = 3, anomalous: int = 4) -> None:
    """`no` and `yes`, named as irregularly as BrainMRI is."""
    files = ["1 no.jpeg", "no 1.jpg", "No11.jpg", "N26.JPG", "no.jpg"]
    for name in (files + names(normal, ".jpg", start=100))[:normal]:
        picture(base / "no" / name)
    for number in range(anomalous):
        picture(base / "yes" / f"Y{number + 8}.JPG")


def write_meta(path: Path, content: Any) -> Path:
    """A `meta.json` with any content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def record(
    image: str, anomaly: int, *, mask: str | None = "", class_name: str = "mug", **extra: Any
) -> dict[str, Any]:
    """One record of a `meta.json`."""
    return {
        "img_path": image,
        "mask_path": mask,
        "cls_name": class_name,
        "specie_name": "chip" if anomaly else "good",
        "anomaly": anomaly,
        **extra,
    }


def listed(root: Path) -> dict[str, Any]:
    """Pictures and masks of one class `mug`, and the list that names them."""
    records = []
    for number in (8, 9, 10):
        place = picture(root / f"pictures/n{number}.png").relative_to(root).as_posix()
        records.append(record(place, 0))
    for number in (8, 9):
        place = picture(root / f"pictures/a{number}.png").relative_to(root).as_posix()
        truth = mask(root / f"truth/a{number}.png").relative_to(root).as_posix()
        records.append(record(place, 1, mask=truth))
    return {"train": {}, "test": {"mug": records}}


def meta_of(dataset: Dataset, folder: Path) -> dict[str, Any]:
    """The content of a `meta.json` in `folder` that names the samples of a dataset."""
    classes: dict[str, list[dict[str, Any]]] = {}
    for sample in dataset:
        image, *masks = (
            path.relative_to(folder).as_posix() for path in (sample.image_path, *sample.mask_paths)
        )
        row = record(
            image, sample.label, mask="".join(masks), class_name=sample.class_name,
            specie_name=sample.defect_type, **sample.extra, dataset_name=dataset.name,
        )  # fmt: skip
        classes.setdefault(sample.class_name, []).append(row)
    return {"train": {}, "test": {}, dataset.split: classes}


def _kind(path: Path) -> str:
    kinds = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
    suffix = path.suffix.lower()
    return kinds.get(suffix, suffix[1:].upper())
