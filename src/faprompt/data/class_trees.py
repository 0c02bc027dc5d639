"""MVTec trees: `<class>/test/<kind>/*` with masks in `<class>/ground_truth/<kind>/*`.

MVTec AD introduced the layout (Bergmann et al., CVPR 2019). BTAD, MPDD, DTD-Synthetic and most
prepared copies of other datasets follow it, with other folder names and file extensions. Without
`ground_truth` a class has image labels only. A folder may also be a single class.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from faprompt.data.dataset_catalog import published_counts
from faprompt.data.foreign_layouts import classes_without_normal, foreign_layout
from faprompt.data.layout_reader import LayoutReader, Masks, Match, Reading, make_sample
from faprompt.data.picture_files import (
    examples,
    find_folder,
    folder_name,
    holds_images,
    is_folder,
    is_normal_name,
    list_folders,
    list_images,
    unnested,
)
from faprompt.errors import DatasetError
from faprompt.records import Sample

_DAGM_CLASS = re.compile(r"class([0-9]+)", re.IGNORECASE)
_DAGM_LIST = "Labels.txt"


@dataclass(frozen=True)
class MvtecTreeReader(LayoutReader[list[Path]]):
    """Reads any MVTec tree; recognises only one whose classes it knows."""

    name: str
    title: str
    layout: str = "<class>/test/<good or a defect>/*, masks in <class>/ground_truth/<defect>/*"
    classes: frozenset[str] = frozenset()  # empty: any class names
    normal_folder: str | None = None  # at least one class has to have test/<this>

    splits = ("test", "train")

    def foreign(self, root: Path) -> str | None:
        return foreign_tree(root)

    def find(self, root: Path) -> Match[list[Path]] | None:
        split = "test" if class_folders(root) else "train"
        folders = class_folders(root, split=split)
        names = [folder_name(folder) for folder in folders]
        known = not self.classes or self.classes >= set(names)
        wanted = self.normal_folder
        marked = not wanted or any(is_folder(folder / split / wanted) for folder in folders)
        reason = f"MVTec tree ({split}/ inside) of {examples(names)}"
        return Match(folders, reason, known and marked) if folders else None

    def samples(self, parts: list[Path], reading: Reading) -> list[Sample]:
        root, split = reading.root, reading.split
        folders = class_folders(root, split=split) or class_folders(root)
        if not folders:
            raise DatasetError(
                f"{root} has train/ and no test/: there is nothing to measure. Put normal pictures "
                "into <class>/test/good and anomalous ones into <class>/test/<defect>."
            )
        if folders != [root]:
            other = "train" if split == "test" else "test"
            bare = [path for path in list_folders(root) if is_folder(path / other)]
            names = [path.name for path in bare if path not in folders]
            reading.add_warning(f"no {split} pictures in {{names}}", names)
        return [sample for folder in folders for sample in _read_class(folder, reading)]


def class_folders(root: Path, *, split: str = "test") -> list[Path]:
    """Return the folders that hold a split: `root` itself, or else its subfolders.

    A `train/` counts if it has a folder of normal pictures; a `test/` if it has any folder.
    """
    own = is_folder(root / "test") or _has_split(root, "train")
    folders = [root] if own else list_folders(root)
    return [folder for folder in folders if _has_split(folder, split)]


def foreign_tree(root: Path) -> str | None:
    """Return which other dataset or layout a folder looks like, as a sentence; or None."""
    for folder in (root, *list_folders(root)):
        if is_folder(folder / "test_public"):
            return "it looks like MVTec AD 2 (test_public/), which has another tree"
        for kind in list_folders(folder / "test"):
            if kind.name in ("logical_anomalies", "structural_anomalies"):
                return f"it looks like MVTec LOCO ({kind.name}/), which has another tree"
            if is_folder(kind / "rgb") and is_folder(kind / "xyz"):
                return "it looks like MVTec 3D-AD (rgb/ and xyz/), which has another tree"
    if told := foreign_layout(root):
        return told
    for folder in class_folders(root):
        if told := foreign_layout(folder) or classes_without_normal(folder):
            return told if folder == root else f"in {folder.name}/, {told}"
    return None


def _has_split(folder: Path, split: str) -> bool:
    kinds = list_folders(folder / split)
    if split == "test":
        return bool(kinds)
    return any(is_normal_name(kind.name) and holds_images(kind) for kind in kinds)


def _read_class(folder: Path, reading: Reading) -> list[Sample]:
    place = folder / reading.split
    kinds = list_folders(place)
    for kind in kinds:
        if not holds_images(kind):
            name = reading.place(kind)
            reading.warnings.append(f"{name} holds no pictures directly and is left out")
    if loose := len(list_images(place)):
        where = f"{reading.place(place)}, unlabelled and left out"
        reading.warnings.append(f"{loose} pictures lie directly in {where}")
    masks = _pair_class(folder, kinds, reading) if reading.split == "test" else {}
    is_masked = bool(masks) or (reading.split == "train" and is_folder(folder / "ground_truth"))
    samples = []
    for kind in kinds:
        defect = None if is_normal_name(kind.name) else kind.name
        for image in list_images(kind):
            own = masks.get(image, ())
            samples.append(make_sample(image, defect, folder_name(folder), own, pixels=is_masked))
    return samples


def _pair_class(folder: Path, kinds: list[Path], reading: Reading) -> Masks:
    """Return the masks of one class; {} if it has image labels only."""
    truth = folder / "ground_truth"
    defects = [kind for kind in kinds if not is_normal_name(kind.name) and holds_images(kind)]
    if not is_folder(truth) or not defects:
        return {}
    pairings = [reading.pair(list_images(kind), list_images(truth / kind.name)) for kind in defects]
    names = {kind.name for kind in defects}
    for other in (truth, *list_folders(truth)):  # blank masks of normal pictures are no orphans
        if other.name not in names and not is_normal_name(other.name):
            reading.orphan_masks += list_images(other)
    return reading.masks_of(pairings, place=reading.place(truth))


class DagmReader(LayoutReader[dict[str, Path]]):
    """DAGM 2007 (Wieler and Hahn, HCI Heidelberg), as on Zenodo or Kaggle, or a part of it.

    A picture is anomalous if `Label/` holds a mask of it; `Label/Labels.txt`, if it exists, is
    compared with the masks. `Train` and `Test` both hold normal and anomalous pictures; the paper
    uses `Test`. The masks are coarse ellipses around the defects, which limits pixel metrics.
    """

    name = "dagm"
    title = "DAGM 2007: ten artificial textures, coarse masks"
    layout = "Class<n>/Test/*.PNG with masks in Class<n>/Test/Label/*_label.PNG"
    splits = ("test", "train")

    def find(self, root: Path) -> Match[dict[str, Path]] | None:
        found: dict[str, Path] = {}
        for folder in list_folders(root):
            if match := _DAGM_CLASS.fullmatch(folder.name):
                place = unnested(folder)
                parts = [part for split in self.splits if (part := find_folder(place, split))]
                if any(holds_images(part) and find_folder(part, "Label") for part in parts):
                    found[f"Class{int(match[1])}"] = place
        return Match(found, f"folders {examples(found)} with Label/") if found else None

    def samples(self, parts: dict[str, Path], reading: Reading) -> list[Sample]:
        return [
            sample
            for class_name, folder in parts.items()
            for sample in _read_texture(class_name, folder, reading)
        ]


def _read_texture(class_name: str, folder: Path, reading: Reading) -> list[Sample]:
    part = find_folder(folder, reading.split)
    if part is None or not holds_images(part):
        reading.add_warning(f"no {reading.split} pictures in {{names}}", [folder])
        return []
    images, labels = list_images(part), find_folder(part, "Label")
    pairing = reading.pair(images, list_images(labels) if labels else ())
    flags = _read_flags(labels / _DAGM_LIST, reading) if labels else {}
    if not pairing.masks and not flags:
        reading.add_problem("nothing in {names}/Label says which pictures have a defect", [part])
        return []
    contradicted = [image for image in pairing.masks if flags.get(image.name.casefold()) is False]
    reading.add_warning(
        "with a mask, but without a defect by Labels.txt; masks win: {names}", contradicted
    )
    lost = [image for image in pairing.unmasked if flags.get(image.name.casefold())]
    if pairing.masks:
        reading.unmasked += lost
    else:
        reading.warnings.append(f"no masks for {class_name}: image labels only")
    normal = set(pairing.unmasked).difference(lost)
    samples = []
    for image in images:
        defect, masks = None if image in normal else "defect", pairing.masks.get(image, ())
        samples.append(make_sample(image, defect, class_name, masks, pixels=bool(pairing.masks)))
    return samples


def _read_flags(file: Path, reading: Reading) -> dict[str, bool]:
    """Return picture -> is it defective, from lines of: index, flag, picture, 0, mask or 0."""
    if not file.is_file():
        return {}
    try:
        rows = [line.split() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reading.warnings.append(f"{reading.place(file)} cannot be read: {error}")
        return {}
    return {
        row[2].casefold(): row[1] == "1" for row in rows if len(row) > 2 and row[1] in ("0", "1")
    }


def _published(name: str, title: str, *, normal_folder: str | None = None) -> MvtecTreeReader:
    classes = frozenset(published_counts(name))
    return MvtecTreeReader(name, title, classes=classes, normal_folder=normal_folder)


MVTEC = _published("mvtec", "MVTec AD: 15 kinds of objects and textures")
BTAD = _published("btad", "BTAD: three industrial products", normal_folder="ok")
MPDD = _published("mpdd", "MPDD: six kinds of painted metal parts")
DTD_SYNTHETIC = _published("dtd_synthetic", "DTD-Synthetic: twelve textures with drawn defects")
MVTEC_STYLE = MvtecTreeReader("mvtec_style", "your own classes in an MVTec tree")
