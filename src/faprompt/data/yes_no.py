"""Two folders, `no` and `yes`: scans without and with the finding (BrainMRI, Br35H).

Both sets come from Kaggle (users navoneel and ahmedhamada0) and have image labels only.
BrainMRI's archive holds its pictures twice, so one level is read: `brain_tumor_dataset/` where
it exists, else the root. Br35H's `pred/` and `Br35H-Mask-RCNN/` do not belong to the labelled
pictures and are never read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from faprompt.data.base import Dataset, Notes, build_dataset, only_split
from faprompt.data.dataset_catalog import published_counts
from faprompt.data.files import (
    examples,
    find_folder,
    folder_name,
    holds_images,
    is_folder,
    list_folders,
    list_images,
    relative_name,
)
from faprompt.errors import DatasetError
from faprompt.records import Sample

_NESTED = "brain_tumor_dataset"
_MASK_RCNN = "Br35H-Mask-RCNN"


@dataclass(frozen=True, slots=True)
class YesNoReader:
    """Reads `no`/`yes`; recognises its own set by a telling folder or by the paper's counts."""

    name: str
    title: str
    layout: str = "no/* (normal) and yes/* (anomalous)"
    marker: str | None = None  # a folder that only this dataset has
    class_name: str | None = None  # None: the root folder's name

    def recognise(self, root: Path) -> str | None:
        """A `no` and a `yes` folder, and what tells this dataset from its like."""
        try:
            base = find_yes_no(root)
        except DatasetError:  # `no` beside `No`: for a plain folder that is nothing special
            return None
        if base is None:
            return None
        if not published_counts(self.name):
            return None if _further_kinds(base) else _reason(root, base)
        telling = _telling_folder(root)
        if telling:
            return f"{_reason(root, base)}, and {telling}/" if telling == self.marker else None
        if _counts(base) in published_counts(self.name).values():
            return f"{_reason(root, base)}, with exactly the published number of pictures"
        return None

    def read(self, root: Path, *, split: str = "test") -> Dataset:
        """Every picture of the two folders; there is no train split."""
        only_split(self.name, split)
        base = find_yes_no(root)
        if base is None:
            found = examples(path.name for path in list_folders(root)) or "no folders"
            raise DatasetError(f"{root} is not {self.name}: expected {self.layout}; found {found}.")
        notes = Notes()
        _note_left_out(root, base, notes)
        class_name = self.class_name or folder_name(root)
        samples = [
            Sample(image, label, class_name, _kind(label), split=split, dataset=self.name)
            for label, folder in enumerate(_folders(base))
            for image in list_images(folder)
        ]
        reason = self.recognise(root) or _reason(root, base)
        return build_dataset(self.name, root, samples, notes, split=split, reason=reason)


def find_yes_no(root: Path) -> Path | None:
    """The one level to read: where `no` and `yes` lie side by side, both with pictures."""
    for base in (root / _NESTED, root):
        folders = find_folder(base, "no"), find_folder(base, "yes")
        if all(folder is not None and holds_images(folder) for folder in folders):
            return base
    return None


def _folders(base: Path) -> tuple[Path, Path]:
    normal, anomalous = find_folder(base, "no"), find_folder(base, "yes")
    assert normal is not None and anomalous is not None
    return normal, anomalous


def _counts(base: Path) -> tuple[int, int]:
    normal, anomalous = _folders(base)
    return len(list_images(normal)), len(list_images(anomalous))


def _kind(label: int) -> str:
    return "yes" if label else "good"


def _further_kinds(base: Path) -> bool:
    """True when other folders hold pictures too, so that these are more than two."""
    ours = {*_folders(base), base / "pred"}
    return any(holds_images(folder) for folder in list_folders(base) if folder not in ours)


def _telling_folder(root: Path) -> str | None:
    return next((name for name in (_NESTED, _MASK_RCNN) if is_folder(root / name)), None)


def _reason(root: Path, base: Path) -> str:
    return " and ".join(f"{relative_name(folder, root)}/" for folder in _folders(base))


def _note_left_out(root: Path, base: Path, notes: Notes) -> None:
    read = set(_folders(base))
    others = [path for level in {root, base} for path in list_folders(level) if path not in read]
    names = sorted(relative_name(path, root) for path in others if path != base)
    if names:
        notes.warnings.append(f"folders beside no and yes are left out: {examples(names)}")


BRAINMRI = YesNoReader(
    "brainmri", "BrainMRI: tumours in MR slices", marker=_NESTED, class_name="brain"
)
BR35H = YesNoReader("br35h", "Br35H: tumours in MR slices", marker=_MASK_RCNN, class_name="brain")
YES_NO = YesNoReader("yes_no", "your own pictures in two folders, no and yes")
