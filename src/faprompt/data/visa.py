"""VisA (Zou et al., ECCV 2022): its own tree split by `split_csv/1cls.csv`, or reorganised.

The dataset's own script turns it into an MVTec tree (`VisA_pytorch/1cls/<class>/test/bad/…`);
both forms hold the same pictures. Only `1cls.csv` gives the paper's split: the two `2cls` files
put anomalous pictures into training.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from faprompt.data.base import Dataset, Notes, build_dataset
from faprompt.data.dataset_catalog import published_counts
from faprompt.data.files import (
    examples,
    find_folder,
    folder_name,
    is_folder,
    list_folders,
    list_images,
    relative_name,
)
from faprompt.data.mvtec import MVTEC_STYLE, class_folders, read_tree
from faprompt.errors import DatasetError
from faprompt.records import Sample

_COLUMNS = {"object", "split", "label", "image", "mask"}
_LABELS = {"normal": 0, "anomaly": 1}
_SPLIT_FILE = "split_csv/1cls.csv"
_WHERE = "it is in the dataset's archive and in the repository amazon-science/spot-diff"


@dataclass(frozen=True, slots=True)
class _Row:
    class_name: str
    split: str
    label: int
    image: Path
    mask: Path | None


@dataclass(frozen=True, slots=True)
class VisaReader:
    """VisA as published, or reorganised by its own script or by anomalib."""

    name: str = "visa"
    title: str = "VisA: 12 kinds of objects"
    layout: str = f"<class>/Data/Images/Normal|Anomaly/* with {_SPLIT_FILE}, or an MVTec tree"

    def recognise(self, root: Path) -> str | None:
        """The split file, VisA's own folders, or an MVTec tree of its classes."""
        if (root / _SPLIT_FILE).is_file():
            return _SPLIT_FILE
        own = _own_folders(root)
        if own:
            return f"Data/Images/Normal in {examples(folder.name for folder in own)}"
        tree = _tree(root)
        return f"MVTec tree of VisA's {examples(_classes(tree))}" if tree else None

    def read(self, root: Path, *, split: str = "test") -> Dataset:
        """The rows of `1cls.csv`, or the reorganised tree."""
        if split not in ("test", "train"):
            raise DatasetError(f"visa has the splits 'test' and 'train', not {split!r}.")
        if (root / _SPLIT_FILE).is_file():
            return _read_rows(root, split)
        self._refuse_without_split(root)
        tree = _tree(root)
        if tree is None:
            found = examples(path.name for path in list_folders(root)) or "no folders"
            raise DatasetError(f"{root} is not visa: expected {self.layout}; found {found}.")
        return read_tree(tree, name="visa", split=split)

    def _refuse_without_split(self, root: Path) -> None:
        if _own_folders(root):
            raise DatasetError(
                f"{root} looks like VisA, but {_SPLIT_FILE} is missing and the folders alone do "
                f"not say which pictures are the test part; {_WHERE}."
            )
        two_class = find_folder(root, "2cls_fewshot", "2cls_highshot")
        if two_class and _tree(root) is None:
            raise DatasetError(
                f"{root} holds only VisA's {two_class.name} form, which trains on anomalies and "
                "has other counts; give the 1cls form."
            )


def _own_folders(root: Path) -> list[Path]:
    return [path for path in list_folders(root) if is_folder(path / "Data/Images/Normal")]


def _tree(root: Path) -> Path | None:
    """The folder of the reorganised tree: `root/1cls`, or `root` itself."""
    for folder in (root / "1cls", root):
        classes = _classes(folder)
        if classes and set(classes) <= published_counts("visa").keys():
            return folder if MVTEC_STYLE.recognise(folder) else None
    return None


def _classes(folder: Path) -> list[str]:
    return [folder_name(path) for path in class_folders(folder)]


def _read_rows(root: Path, split: str) -> Dataset:
    rows = _parse_rows(root)
    chosen = [row for row in rows if row.split == split]
    missing = [relative_name(row.image, root) for row in chosen if not row.image.is_file()]
    notes = Notes()
    if missing:
        notes.problems.append(
            f"{len(missing)} pictures named in {_SPLIT_FILE} are not there: {examples(missing)}"
        )
    present = [row for row in chosen if row.image.is_file()]
    masked = {row.class_name for row in chosen if row.mask and row.mask.is_file()}
    samples = [_sample(row, row.class_name in masked, notes) for row in present]
    bare = sorted({row.class_name for row in present if row.label} - masked)
    if bare:
        notes.warnings.append(f"no masks for {examples(bare)}: image labels only")
    notes.orphan_masks += _unlisted_masks(root, rows)
    return build_dataset("visa", root, samples, notes, split=split, reason=_SPLIT_FILE)


def _sample(row: _Row, class_has_masks: bool, notes: Notes) -> Sample:
    masks = (row.mask,) if row.mask and row.mask.is_file() else ()
    if row.label and class_has_masks and not masks:
        notes.unmasked.append(row.image)
    return Sample(
        image_path=row.image,
        label=row.label,
        class_name=row.class_name,
        defect_type="bad" if row.label else "good",  # as the reorganised tree calls them
        mask_paths=masks,
        has_pixel_label=class_has_masks and (row.label == 0 or bool(masks)),
        split=row.split,
        dataset="visa",
    )


def _parse_rows(root: Path) -> list[_Row]:
    file = root / _SPLIT_FILE
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            table = csv.DictReader(stream)
            table.fieldnames = [name.strip().lower() for name in table.fieldnames or ()]
            if not set(table.fieldnames) >= _COLUMNS:
                wanted, found = ", ".join(sorted(_COLUMNS)), ", ".join(table.fieldnames)
                raise DatasetError(f"{file} should have the columns {wanted}; it has {found}.")
            return [_parse_row(row, root, f"{file}, line {table.line_num}") for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{file} cannot be read: {error}.") from error


def _parse_row(row: dict[str, str | None], root: Path, where: str) -> _Row:
    cells = {name: (row[name] or "").strip() for name in _COLUMNS}
    label = _LABELS.get(cells["label"].lower())
    if label is None:
        raise DatasetError(f"{where}: label should be normal or anomaly, got {cells['label']!r}.")
    if not cells["image"]:
        raise DatasetError(f"{where}: there is no image path.")
    return _Row(
        class_name=cells["object"],
        split=cells["split"].lower(),
        label=label,
        image=root / cells["image"],
        mask=root / cells["mask"] if label and cells["mask"] else None,
    )


def _unlisted_masks(root: Path, rows: list[_Row]) -> list[Path]:
    """Mask files that no row of any split names."""
    listed = {row.mask for row in rows}
    folders = [root / name / "Data/Masks/Anomaly" for name in {row.class_name for row in rows}]
    return [mask for folder in folders for mask in list_images(folder) if mask not in listed]
