"""Real-IAD (Wang et al., CVPR 2024): one JSON list per class beside a tree of `OK` and `NG`.

More auxiliary data to train on; the FAPrompt paper does not use it. `test` has both labels,
`train` normal pictures only. The list gives the label, since a defective part has views that
show nothing of its defect. Lists lie in `realiad_jsons/`, or beside the class folders. Of several
resolutions the finest is read; of several lists the one of all five views.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from faprompt.data.dataset import sort_samples
from faprompt.data.layout_reader import LayoutReader, Match, Reading, make_sample
from faprompt.data.picture_files import (
    examples,
    is_folder,
    list_files,
    list_folders,
    read_json_list,
    relative_name,
)
from faprompt.errors import DatasetError
from faprompt.records import Sample

_RESOLUTIONS = ("realiad_1024", "realiad_512", "realiad_256", "realiad_raw", "")
_LISTS = ("realiad_jsons/realiad_jsons", "realiad_jsons", "realiad_jsons/realiad_jsons_sv", "")


@dataclass(frozen=True)
class RealIadReader(LayoutReader[tuple[Path, list[Path]]]):
    """Real-IAD as published, or with its lists beside the class folders.

    Attributes:
        views: views to keep, such as ("C1", "C3"); () for all.
        most_per_label: largest number of normal and of anomalous pictures of each class, spread
            evenly over their natural order; None for all.
    """

    views: tuple[str, ...] = ()
    most_per_label: int | None = None

    name = "realiad"
    title = "Real-IAD: 30 kinds of objects from five sides, to train on"
    layout = "realiad_1024/<class>/OK|NG/… with lists realiad_jsons/realiad_jsons/<class>.json"
    splits = ("test", "train")

    def __post_init__(self) -> None:
        if self.most_per_label is not None and self.most_per_label < 1:
            raise ValueError(f"most_per_label should be at least 1, got {self.most_per_label}.")

    def find(self, root: Path) -> Match[tuple[Path, list[Path]]] | None:
        """Return the folder of the classes and the lists named like them; no list is opened."""
        for resolution in _RESOLUTIONS:
            pictures = root / resolution
            folders = list_folders(pictures)
            classes = {f.name for f in folders if is_folder(f / "OK") or is_folder(f / "NG")}
            for place in _LISTS if classes else ():
                files = list_files(root / place, ".json")
                if named := [file for file in files if file.stem in classes]:
                    names = examples(file.stem for file in named)
                    reason = f"lists {place or '.'}/<class>.json of {names}"
                    return Match((pictures, files if place else named), reason)
        return None

    def samples(self, parts: tuple[Path, list[Path]], reading: Reading) -> list[Sample]:
        pictures, files = parts
        folders = [pictures / file.stem for file in files]
        listed = [
            sample
            for file, folder in zip(files, folders, strict=True)
            if is_folder(folder)
            for sample in _read_list(file, folder, reading.split)
            if not self.views or sample.extra.get("view") in self.views
        ]
        exists = reading.existing((sample.image_path for sample in listed), source="the lists")
        present = [sample for sample in listed if sample.image_path in exists]
        if reading.split == "train":
            present = [replace(sample, has_pixel_label=True) for sample in present]
        else:
            present = reading.label_pixels(present)
        if absent := [folder.name for folder in folders if not is_folder(folder)]:
            place = relative_name(pictures, reading.root)
            reading.warnings.append(f"no pictures in {place} of {examples(absent)}")
        others = [name for name in _RESOLUTIONS if name and is_folder(reading.root / name)]
        if len(others) > 1:
            reading.warnings.append(f"of {examples(others)}, {pictures.name} is read")
        if self.most_per_label is None:
            return present
        return _spread(sort_samples(present, reading.root), self.most_per_label)


def _read_list(file: Path, folder: Path, split: str) -> list[Sample]:
    """Return the samples of one class and split, in file order."""
    content = read_json_list(file)
    records = content.get(split) if isinstance(content, dict) else None
    if not isinstance(records, list):
        raise DatasetError(f"{file} should have a list {split!r} of records, as Real-IAD's do.")
    meta = content.get("meta")
    normal = meta.get("normal_class", "OK") if isinstance(meta, dict) else "OK"
    return [
        _read_record(record, folder, normal, f"{file}, {split} record {number}")
        for number, record in enumerate(records)
    ]


def _read_record(record: Any, folder: Path, normal: str, where: str) -> Sample:
    if not isinstance(record, dict):
        raise DatasetError(f"{where}: should be an object, got {record!r}.")
    cells = [record.get(key) for key in ("anomaly_class", "image_path", "mask_path")]
    kind, image, mask = cells[0], cells[1], cells[2] or ""
    if not (isinstance(kind, str) and isinstance(image, str) and isinstance(mask, str)):
        raise DatasetError(
            f"{where}: anomaly_class and image_path should be text, mask_path text or null, "
            f"got {cells}."
        )
    has_mask = kind != normal and bool(mask) and (folder / mask).is_file()
    masks = (folder / mask,) if has_mask else ()
    sample = make_sample(folder / image, None if kind == normal else kind, folder.name, masks)
    # the view, C1 to C5, is the last part but one of the file name
    view = [*sample.image_path.stem.split("_")[-2:-1], ""][0]
    return replace(sample, extra={"view": view}) if view.startswith("C") else sample


def _spread(samples: Sequence[Sample], most: int) -> list[Sample]:
    """Return at most so many of each class and label, evenly spaced, in the given order."""
    groups: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.class_name, sample.label].append(sample)
    chosen: set[int] = set()
    for group in groups.values():
        count = min(most, len(group))
        chosen |= {id(group[place * len(group) // count]) for place in range(count)}
    return [sample for sample in samples if id(sample) in chosen]
