"""MVTec trees: `<class>/test/<kind>/*` with masks in `<class>/ground_truth/<kind>/*`.

MVTec AD introduced the layout (Bergmann et al., CVPR 2019). BTAD, MPDD, DTD-Synthetic and most
prepared copies of other datasets follow it, with other folder names and file extensions. Without
`ground_truth` a class has image labels only. A folder may also be a single class.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from faprompt.data.dataset_catalog import published_counts
from faprompt.data.foreign_layouts import classes_without_normal, foreign_layout
from faprompt.data.layout_reader import LayoutReader, Masks, Match, Reading, make_sample
from faprompt.data.picture_files import (
    examples,
    folder_name,
    holds_images,
    is_folder,
    is_normal_name,
    list_folders,
    list_images,
)
from faprompt.errors import DatasetError
from faprompt.records import Sample


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


def _published(name: str, title: str, *, normal_folder: str | None = None) -> MvtecTreeReader:
    classes = frozenset(published_counts(name))
    return MvtecTreeReader(name, title, classes=classes, normal_folder=normal_folder)


MVTEC = _published("mvtec", "MVTec AD: 15 kinds of objects and textures")
BTAD = _published("btad", "BTAD: three industrial products", normal_folder="ok")
MPDD = _published("mpdd", "MPDD: six kinds of painted metal parts")
DTD_SYNTHETIC = _published("dtd_synthetic", "DTD-Synthetic: twelve textures with drawn defects")
MVTEC_STYLE = MvtecTreeReader("mvtec_style", "your own classes in an MVTec tree")
