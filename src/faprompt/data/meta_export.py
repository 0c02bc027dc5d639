"""Write a dataset as `meta.json`, so that AnomalyCLIP and its kin can run on our splits."""

from __future__ import annotations

import json
import os
from pathlib import Path

from faprompt.data.dataset import Dataset
from faprompt.data.picture_files import examples
from faprompt.errors import DatasetError
from faprompt.files import write_atomically
from faprompt.records import Sample


def write_meta_json(dataset: Dataset, path: str | Path) -> Path:
    """Write one split in the form those projects read.

    Pictures below the file's folder are named relative to it, so a file at the dataset's root
    (where those projects look) goes on working when the folder moves; other pictures are named
    in full. Besides the usual keys each record carries `dataset_name`.

    Args:
        dataset: one split.
        path: the file to write, usually `<root>/meta.json`; replaced if it exists.

    Returns:
        The path written.

    Raises:
        DatasetError: the format cannot hold a sample: it is a region of a picture, has
            several masks, or a mask that is drawn from a list of outlines.
    """
    target = Path(path)
    unfit = [sample for sample in dataset if _is_unfit(sample)]
    if unfit:
        names = examples(sample.image_path.name for sample in unfit)
        raise DatasetError(
            f"meta.json holds whole pictures with one mask at most; {len(unfit)} samples are "
            f"regions or have several masks or drawn ones: {names}."
        )
    classes: dict[str, list[dict[str, object]]] = {name: [] for name in dataset.class_names()}
    for sample in dataset:
        classes[sample.class_name].append(_record(sample, dataset.name, target.parent))
    splits: dict[str, object] = {"train": {}, "test": {}}
    splits[dataset.split] = classes
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, (json.dumps(splits, indent=4) + "\n").encode())
    return target


def _is_unfit(sample: Sample) -> bool:
    several = len(sample.mask_paths) > 1
    return several or sample.region is not None or bool(sample.label and sample.drawn_mask)


def _record(sample: Sample, dataset_name: str, folder: Path) -> dict[str, object]:
    return {
        "img_path": _place(sample.image_path, folder),
        "mask_path": _place(sample.mask_paths[0], folder) if sample.mask_paths else "",
        "cls_name": sample.class_name,
        "specie_name": sample.defect_type,
        "anomaly": sample.label,
        **sample.extra,
        "dataset_name": dataset_name,
    }


def _place(path: Path, folder: Path) -> str:
    """Relative to `folder` when below it, by name or where links lead; else in full."""
    full = Path(os.path.abspath(path))
    linked = path.parent.resolve() / path.name
    for below, base in ((full, Path(os.path.abspath(folder))), (linked, folder.resolve())):
        if below.is_relative_to(base):
            return below.relative_to(base).as_posix()
    return full.as_posix()
