"""The MVTec tree: `<class>/test/<kind>/*` with masks in `<class>/ground_truth/<kind>/*`.

MVTec AD set the form (Bergmann et al., CVPR 2019); BTAD, MPDD, DTD-Synthetic and most prepared
copies of other datasets follow it with other folder names and file extensions. Without
`ground_truth` a class has image labels only; a folder may also be a single class.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from faprompt.data.base import Dataset, Notes, build_dataset, take_pairings
from faprompt.data.files import (
    examples,
    folder_name,
    holds_images,
    is_folder,
    is_normal_name,
    list_folders,
    list_images,
    relative_name,
)
from faprompt.data.foreign import classes_without_normal, foreign_layout
from faprompt.data.pairing import pair_masks
from faprompt.data.published_counts import published_counts
from faprompt.errors import DatasetError
from faprompt.records import Sample

TREE = "<class>/test/<good or a defect>/*, masks in <class>/ground_truth/<defect>/*"


@dataclass(frozen=True, slots=True)
class MvtecTreeReader:
    """Reads any MVTec tree; recognises the one whose class names it was given."""

    name: str
    title: str
    layout: str = TREE
    classes: frozenset[str] = frozenset()  # empty: any class names
    normal_folder: str | None = None  # one class at least has to have test/<this>

    def recognise(self, root: Path) -> str | None:
        """The class folders found, when all of them are this dataset's."""
        split = "test" if class_folders(root) else "train"
        folders = class_folders(root, split=split)
        names = [folder_name(folder) for folder in folders]
        if not folders or foreign_tree(root) or (self.classes and not self.classes >= set(names)):
            return None
        wanted = self.normal_folder
        if wanted and not any(is_folder(folder / split / wanted) for folder in folders):
            return None
        return f"MVTec tree ({split}/ inside) of {examples(names)}"

    def read(self, root: Path, *, split: str = "test") -> Dataset:
        """All pictures of `test`, or of `train`; a class without the other split is read too."""
        if split not in ("test", "train"):
            raise DatasetError(f"{self.name} has the splits 'test' and 'train', not {split!r}.")
        return read_tree(root, name=self.name, split=split, expected=self.layout)


def read_tree(root: Path, *, name: str, split: str, expected: str = TREE) -> Dataset:
    """Read every class of an MVTec tree.

    Raises:
        DatasetError: `root` is no such tree, or a later MVTec dataset with another tree; or no
            class has the split.
    """
    foreign = foreign_tree(root)
    if foreign:
        raise DatasetError(f"{root} is not {name}: {foreign}.")
    folders = class_folders(root, split=split) or class_folders(root)
    if not folders and class_folders(root, split="train"):
        raise DatasetError(
            f"{root} has train/ and no test/: there is nothing to measure. Put normal pictures "
            "into <class>/test/good and anomalous ones into <class>/test/<defect>."
        )
    if not folders:
        found = examples(path.name for path in list_folders(root)) or "no folders"
        raise DatasetError(f"{root} is not {name}: expected {expected}; found {found}.")
    notes = Notes()
    _note_incomplete(root, folders, notes, split=split)
    samples = [
        sample
        for folder in folders
        for sample in _read_class(folder, root, name=name, split=split, notes=notes)
    ]
    names = examples(folder_name(folder) for folder in folders)
    reason = f"MVTec tree ({split}/ inside) of {names}"
    return build_dataset(name, root, samples, notes, split=split, reason=reason)


def class_folders(root: Path, *, split: str = "test") -> list[Path]:
    """Folders with that split inside: `root` itself, or else its subfolders.

    A `train/` counts if a folder of normal pictures lies in it; a `test/` if any folder does.
    """
    own = is_folder(root / "test") or _has_split(root, "train")
    folders = [root] if own else list_folders(root)
    return [folder for folder in folders if _has_split(folder, split)]


def _has_split(folder: Path, split: str) -> bool:
    kinds = list_folders(folder / split)
    if split == "test":
        return bool(kinds)
    return any(is_normal_name(kind.name) and holds_images(kind) for kind in kinds)


def foreign_tree(root: Path) -> str | None:
    """Which other dataset or layout this looks like, as a sentence, or None."""
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


def _note_incomplete(root: Path, folders: list[Path], notes: Notes, *, split: str) -> None:
    """Name the classes that have only the other split."""
    if folders == [root]:
        return
    other = "train" if split == "test" else "test"
    bare = [path for path in list_folders(root) if is_folder(path / other)]
    names = [path.name for path in bare if path not in folders]
    if names:
        notes.warnings.append(f"no {split} pictures in {examples(names)}")


def _read_class(folder: Path, root: Path, *, name: str, split: str, notes: Notes) -> list[Sample]:
    class_name = folder_name(folder)
    kinds = [kind for kind in list_folders(folder / split) if _has_images(kind, root, notes)]
    _note_loose(folder / split, root, notes)
    pairs = _pair_class(folder, kinds, root, notes) if split == "test" else {}
    pixels = bool(pairs) or (split == "train" and is_folder(folder / "ground_truth"))
    samples = []
    for kind in kinds:
        normal = is_normal_name(kind.name)
        for image in list_images(kind):
            masks = pairs.get(image, ())
            samples.append(
                Sample(
                    image_path=image,
                    label=0 if normal else 1,
                    class_name=class_name,
                    defect_type="good" if normal else kind.name,
                    mask_paths=masks,
                    has_pixel_label=pixels and (normal or bool(masks)),
                    split=split,
                    dataset=name,
                )
            )
    return samples


def _pair_class(
    folder: Path, kinds: list[Path], root: Path, notes: Notes
) -> dict[Path, tuple[Path, ...]]:
    """Masks of one class; {} means it has image labels only."""
    truth = folder / "ground_truth"
    defects = [kind for kind in kinds if not is_normal_name(kind.name)]
    if not is_folder(truth) or not defects:
        return {}
    pairings = [
        pair_masks(list_images(kind), list_images(truth / kind.name), root=root) for kind in defects
    ]
    stray = _stray_masks(truth, {kind.name for kind in defects})
    notes.orphan_masks += stray
    return take_pairings(pairings, notes, what=relative_name(truth, root))


def _stray_masks(truth: Path, defects: set[str]) -> list[Path]:
    """Masks outside the folders of the defects; blank ones of normal pictures are no strays."""
    others = [
        folder
        for folder in list_folders(truth)
        if folder.name not in defects and not is_normal_name(folder.name)
    ]
    return [mask for folder in (truth, *others) for mask in list_images(folder)]


def _has_images(kind: Path, root: Path, notes: Notes) -> bool:
    if holds_images(kind):
        return True
    notes.warnings.append(f"{relative_name(kind, root)} holds no pictures directly and is left out")
    return False


def _note_loose(folder: Path, root: Path, notes: Notes) -> None:
    loose = len(list_images(folder))
    if loose:
        place = relative_name(folder, root)
        notes.warnings.append(f"{loose} pictures lie directly in {place}, unlabelled and left out")


def _published(name: str, title: str, *, normal_folder: str | None = None) -> MvtecTreeReader:
    classes = frozenset(published_counts(name))
    return MvtecTreeReader(name, title, classes=classes, normal_folder=normal_folder)


MVTEC = _published("mvtec", "MVTec AD: 15 kinds of objects and textures")
BTAD = _published("btad", "BTAD: three industrial products", normal_folder="ok")
MPDD = _published("mpdd", "MPDD: six kinds of painted metal parts")
DTD_SYNTHETIC = _published("dtd_synthetic", "DTD-Synthetic: twelve textures with drawn defects")
MVTEC_STYLE = MvtecTreeReader("mvtec_style", "your own classes in an MVTec tree")
