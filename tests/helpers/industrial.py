"""KolektorSDD, AITEX, DAGM, ELPV and Real-IAD drawn on the spot, traps included."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.helpers import folders

SDD_SIZE = (11, 14)  # bands of 3, 3 and 5 rows
STRIP_HEIGHT = 8


def sdd(root: Path) -> None:
    """Six pictures. One defect lies in the last band at the palette's 85, one in two bands."""
    for place in ("kos2/Part2", "kos10/Part0", "kos10/Part2", "kos10/Part-ü"):
        sdd_picture(root / place)
    sdd_picture(root / "kos2/Part10", rows=(7, 9), index=1)
    sdd_picture(root / "kos10/Part1", rows=(2, 5), index=2)


def sdd_picture(place: Path, *, rows: tuple[int, int] | None = None, index: int = 2) -> Path:
    """`Part0.jpg` and its mask: plain grey without a defect, else a palette of 0, 85 and 255."""
    path = folders.picture(place.with_name(f"{place.name}.jpg"), size=SDD_SIZE, mode="L")
    values = np.zeros(SDD_SIZE, dtype=np.uint8)
    truth = Image.fromarray(values)
    if rows:
        values[slice(*rows), 3:8] = index
        truth = Image.fromarray(values, mode=None).convert("P")
        truth.putdata(values.ravel().tolist())
        truth.putpalette([0, 0, 0, 85, 85, 85, 255, 255, 255])
    truth.save(place.with_name(f"{place.name}_label.bmp"))
    return path


def aitex(root: Path, *, nested: bool = False) -> None:
    """Eight normal slices; four defect strips, one without a mask; `nested` as on Kaggle."""
    normal = root / "NODefect_images"
    strip(normal / "2306881-210020u/0002_000_05.png", 600)
    strip(normal / "2306881-210020u/0010_000_05.png", 600, mode="LA")
    strip(normal / "2608691-ä/0018_00_01.png", 512)
    defects, masks = root / "Defect_images", root / "Mask_images"
    if nested:
        defects, masks = defects / defects.name, masks / masks.name
    for name, width in (("0001_002_00", 600), ("0044_019_04", 600), ("0100_025_08", 600)):
        strip(defects / f"{name}.png", width)
    strip(defects / "0094_027_05.png", 300, mode="LA")
    strip_mask(masks / "0001_002_00_mask.png", 600, columns=(250, 263))
    strip_mask(masks / "0044_019_04_mask1.png", 600, columns=(10, 14))
    strip_mask(masks / "0044_019_04_mask2.png", 600, columns=(590, 600), value=3)
    strip_mask(masks / "0094_027_05_mask.png", 300, columns=(260, 270))


def strip(path: Path, width: int, *, mode: str = "L") -> Path:
    """A strip of fabric."""
    return folders.picture(path, size=(STRIP_HEIGHT, width), mode=mode)


def strip_mask(path: Path, width: int, *, columns: tuple[int, int], value: int = 255) -> Path:
    """Rows 2 to 4 of some columns."""
    values = np.zeros((STRIP_HEIGHT, width), dtype=np.uint8)
    values[2:5, slice(*columns)] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def dagm(root: Path) -> None:
    """Three classes, one of them nested; both parts hold normal and anomalous pictures."""
    dagm_class(root / "Class1")
    dagm_class(root / "Class2/Class2", label_folder="label", listed=False)
    dagm_class(root / "Class10")


def dagm_class(
    folder: Path, *, label_folder: str = "Label", listed: bool = True, parts: Sequence[str] = ()
) -> None:
    """Pictures 8 to 11 in each part; 9 and 10 have a defect."""
    for part in parts or ("Train", "Test"):
        rows = ["1"]
        for number in range(8, 12):
            name = f"{number:04d}"
            folders.picture(folder / part / f"{name}.PNG", mode="L")
            truth = "0"
            if number in (9, 10):
                mask = folders.mask(folder / part / label_folder / f"{name}_label.PNG")
                truth = mask.name
            rows.append(f"{number}\t{int(truth != '0')}\t{name}.PNG\t0\t{truth}")
        if listed:
            (folder / part / label_folder / "Labels.txt").write_text("\n".join(rows) + "\n")


def elpv(base: Path) -> None:
    """Fifteen cells: ten sound, three defective, two in between."""
    chances = [0.0] * 8 + [1.0, 1 / 3, 0.0, 2 / 3, 1.0, 1.0, 0.0]
    elpv_cells(base, chances)


def elpv_cells(base: Path, chances: Sequence[float]) -> None:
    """`labels.csv` as published, and its pictures."""
    rows = []
    for number, chance in enumerate(chances, start=8):
        place = f"images/cell{number:04d}.png"
        folders.picture(base / place, mode="L")
        rows.append(f"{place}  {chance!s:<18}  {('mono', 'poly')[number % 2]}")
    (base / "labels.csv").write_text("\n".join(rows) + "\n")


def realiad(
    root: Path,
    *,
    pictures: str = "realiad_1024",
    lists: str = "realiad_jsons/realiad_jsons",
    classes: Sequence[str] = ("toy", "u_block"),
) -> None:
    """Two classes, seen from two sides."""
    for name in classes:
        write_list(root / lists / f"{name}.json", realiad_class(root / pictures / name))


def realiad_class(folder: Path) -> dict[str, Any]:
    """Pictures of one class and the content of its list.

    The part 9 shows its defect from C1 only: from C2 it is normal, though it lies in `NG`.
    """

    def record(place: str, kind: str, *, masked: bool = False) -> dict[str, Any]:
        image = folders.picture(folder / f"{place}.jpg")
        mask = folders.mask(folder / f"{place}_mask.png") if masked else None
        return {
            "category": folder.name,
            "anomaly_class": kind,
            "image_path": image.relative_to(folder).as_posix(),
            "mask_path": mask.relative_to(folder).as_posix() if mask else None,
        }

    def ok(part: int, view: str) -> dict[str, Any]:
        return record(f"OK/S{part:04d}/{folder.name}_{part:04d}_OK_{view}_2023", "OK")

    bad = f"NG/AK/S0009/{folder.name}_0009_NG_AK"
    return {
        "meta": {"prefix": f"{folder.name}/", "normal_class": "OK", "pre_transform": None},
        "train": [ok(part, "C1") for part in (1, 2)],
        "test": [
            ok(10, "C1"),
            ok(8, "C2"),
            ok(8, "C1"),
            record(f"{bad}_C2_2023", "OK"),
            record(f"{bad}_C1_2023", "AK", masked=True),
            record(f"{bad.replace('0009', '0011')}_C1_2023", "AK", masked=True),
        ],
    }


def write_list(path: Path, content: Mapping[str, Any]) -> Path:
    """Any content as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
