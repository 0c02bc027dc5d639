"""VisA (Zou et al., ECCV 2022): its own tree with `split_csv/1cls.csv`, or an MVTec tree.

The dataset's own script turns it into an MVTec tree (`VisA_pytorch/1cls/<class>/test/bad/…`) of
the same pictures. Only `1cls.csv` gives the paper's split: the two `2cls` files put anomalous
pictures into training.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from faprompt.data.csv_table import Row, read_columns, read_rows
from faprompt.data.dataset import Dataset
from faprompt.data.dataset_catalog import published_counts
from faprompt.data.layout_reader import LayoutReader, Match, Reading, check_split, make_sample
from faprompt.data.mvtec_tree import MVTEC_STYLE, class_folders
from faprompt.data.picture_files import (
    examples,
    find_folder,
    folder_name,
    is_folder,
    list_folders,
    list_images,
)
from faprompt.errors import DatasetError
from faprompt.records import Sample

_COLUMNS = {"object", "split", "label", "image", "mask"}
_SPLIT_FILE = "split_csv/1cls.csv"


class VisaReader(LayoutReader[Path]):
    """VisA as published, or reorganised by its own script or by anomalib."""

    name = "visa"
    title = "VisA: 12 kinds of objects"
    layout = f"<class>/Data/Images/Normal|Anomaly/* with {_SPLIT_FILE}, or an MVTec tree"
    splits = ("test", "train")

    def find(self, root: Path) -> Match[Path] | None:
        if (root / _SPLIT_FILE).is_file():
            return Match(root / _SPLIT_FILE, _SPLIT_FILE)
        if own := _own_folders(root):
            names = examples(folder.name for folder in own)
            return Match(own[0], f"Data/Images/Normal in {names}")
        tree = _find_tree(root)
        names = examples(map(folder_name, class_folders(tree))) if tree else ""
        return Match(tree, f"MVTec tree of VisA's {names}") if tree else None

    def read(self, root: Path, *, split: str = "test", subset: str = "paper") -> Dataset:
        """Return the rows of `1cls.csv`, or the MVTec tree.

        Raises:
            DatasetError: the folder is not VisA, or its split is unknown or not the paper's.
        """
        check_split(self.name, split, self.splits)
        tree = _find_tree(root)
        if not (root / _SPLIT_FILE).is_file():
            if _own_folders(root):
                raise DatasetError(
                    f"{root} looks like VisA, but {_SPLIT_FILE} is missing and the folders alone "
                    "do not say which pictures are the test part; it is in the dataset's archive "
                    "and in the repository amazon-science/spot-diff."
                )
            two_class = find_folder(root, "2cls_fewshot", "2cls_highshot")
            if two_class and tree is None:
                raise DatasetError(
                    f"{root} holds only VisA's {two_class.name} form, which trains on anomalies "
                    "and has other counts; give the 1cls form."
                )
            if tree:
                return replace(MVTEC_STYLE, name=self.name).read(tree, split=split)
        return super().read(root, split=split)

    def samples(self, parts: Path, reading: Reading) -> list[Sample]:
        names = read_columns(parts)
        if not set(names) >= _COLUMNS:
            wanted = ", ".join(sorted(_COLUMNS))
            raise DatasetError(
                f"{parts} should have the columns {wanted}; it has {', '.join(names)}."
            )
        rows = read_rows(parts)
        every = [_read_row(row, reading.root) for row in rows]
        chosen = [
            sample
            for sample, row in zip(every, rows, strict=True)
            if row.cells["split"].casefold() == reading.split
        ]
        exists = reading.existing((s.image_path for s in chosen), source=_SPLIT_FILE)
        listed = {mask for sample in every for mask in sample.mask_paths}
        for class_name in {sample.class_name for sample in every}:
            masks = list_images(reading.root / class_name / "Data/Masks/Anomaly")
            reading.orphan_masks += [mask for mask in masks if mask not in listed]
        return reading.label_pixels([s for s in chosen if s.image_path in exists])


def _own_folders(root: Path) -> list[Path]:
    return [path for path in list_folders(root) if is_folder(path / "Data/Images/Normal")]


def _find_tree(root: Path) -> Path | None:
    for folder in (root / "1cls", root):
        classes = set(map(folder_name, class_folders(folder)))
        if classes and classes <= published_counts("visa").keys():
            return folder if MVTEC_STYLE.recognise(folder) else None
    return None


def _read_row(row: Row, root: Path) -> Sample:
    label, image, mask = (row.cells[name] for name in ("label", "image", "mask"))
    if label.casefold() not in ("normal", "anomaly"):
        raise DatasetError(f"{row.where}: label should be normal or anomaly, got {label!r}.")
    if not image:
        raise DatasetError(f"{row.where}: there is no image path.")
    is_anomalous = label.casefold() == "anomaly"
    has_mask = is_anomalous and bool(mask) and (root / mask).is_file()
    return make_sample(
        root / image,
        "bad" if is_anomalous else None,  # the name in the MVTec tree
        row.cells["object"],
        (root / mask,) if has_mask else (),
    )
