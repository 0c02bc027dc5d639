"""Real-IAD (Wang et al., CVPR 2024): one JSON list per class over a tree of `OK` and `NG`.

More auxiliary data to train on; the FAPrompt paper does not use it. `test` has both labels,
`train` normal pictures alone. The list gives the label, since a defective part has views that
show nothing of its defect. Lists lie in `realiad_jsons/`, or beside the class folders; of several
resolutions the finest is read, of several lists the one of all five views.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faprompt.data.base import Dataset, Notes, build_dataset, sort_samples
from faprompt.data.files import (
    examples,
    is_folder,
    list_files,
    list_folders,
    read_json,
    relative_name,
)
from faprompt.errors import DatasetError
from faprompt.records import Sample

_RESOLUTIONS = ("realiad_1024", "realiad_512", "realiad_256", "realiad_raw", "")
_LISTS = ("realiad_jsons/realiad_jsons", "realiad_jsons", "realiad_jsons/realiad_jsons_sv", "")
_SPLITS = ("test", "train")


@dataclass(frozen=True, slots=True)
class RealIadReader:
    """Real-IAD as published, or with its lists beside the class folders.

    Attributes:
        views: only these, such as ("C1", "C3"); () for all.
        most_per_label: at most so many normal and so many anomalous pictures of each class,
            spread evenly over their natural order; None for all.
    """

    name: str = "realiad"
    title: str = "Real-IAD: 30 kinds of objects from five sides, to train on"
    layout: str = "realiad_1024/<class>/OK|NG/… with lists realiad_jsons/realiad_jsons/<class>.json"
    views: tuple[str, ...] = ()
    most_per_label: int | None = None

    def __post_init__(self) -> None:
        if self.most_per_label is not None and self.most_per_label < 1:
            raise ValueError(f"most_per_label should be at least 1, got {self.most_per_label}.")

    def recognise(self, root: Path) -> str | None:
        """Lists named like class folders with `OK` or `NG` inside; no list is opened."""
        return _find(root)[2]

    def read(self, root: Path, *, split: str = "test") -> Dataset:
        """The pictures of one entry of the lists."""
        if split not in _SPLITS:
            raise DatasetError(f"{self.name} has the splits 'test' and 'train', not {split!r}.")
        pictures, lists, reason = _find(root)
        if reason is None:
            found = examples(path.name for path in list_folders(root)) or "no folders"
            raise DatasetError(f"{root} is not {self.name}: expected {self.layout}; found {found}.")
        reading = _Reading(root, split, self.views)
        for file in lists:
            if is_folder(pictures / file.stem):
                reading.add(file, pictures / file.stem)
            else:
                reading.absent.append(file.stem)
        reading.tell(pictures)
        samples = sort_samples(reading.samples, root)
        if self.most_per_label is not None:
            samples = _spread(samples, self.most_per_label)
        return build_dataset(self.name, root, samples, reading.notes, split=split, reason=reason)


def _find(root: Path) -> tuple[Path, list[Path], str | None]:
    """The folder of the classes, their lists, and what both were told by (None: not ours)."""
    for resolution in _RESOLUTIONS:
        pictures = root / resolution
        classes = {folder.name for folder in list_folders(pictures) if _is_class(folder)}
        for place in _LISTS if classes else ():
            lists = list_files(root / place, ".json")
            named = [file.stem for file in lists if file.stem in classes]
            if named:
                told = f"lists {place or '.'}/<class>.json of {examples(named)}"
                own = [file for file in lists if place or file.stem in classes]
                return pictures, own, told
    return root, [], None


def _is_class(folder: Path) -> bool:
    return is_folder(folder / "OK") or is_folder(folder / "NG")


@dataclass(slots=True)
class _Reading:
    """Records on their way to samples."""

    root: Path
    split: str
    views: tuple[str, ...]
    notes: Notes = field(default_factory=Notes)
    samples: list[Sample] = field(default_factory=list)
    missing: list[Path] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)  # classes with a list and no folder

    def add(self, file: Path, folder: Path) -> None:
        """Take the records of one class."""
        found = [_Record(folder, *cells) for cells in _records(file, self.split)]
        if self.views:
            found = [record for record in found if record.view in self.views]
        self.missing += [record.image for record in found if not record.image.is_file()]
        present = [record for record in found if record.image.is_file()]
        masked = any(record.masks for record in present) or self.split == "train"
        if not masked and any(record.anomalous for record in present):
            self.notes.warnings.append(f"no masks for {folder.name}: image labels only")
        self.samples += [self._sample(record, masked) for record in present]

    def _sample(self, record: _Record, masked: bool) -> Sample:
        masks = record.masks
        if record.anomalous and masked and not masks:
            self.notes.unmasked.append(record.image)
        return Sample(
            image_path=record.image,
            label=int(record.anomalous),
            class_name=record.folder.name,
            defect_type=record.kind if record.anomalous else "good",
            mask_paths=masks,
            has_pixel_label=masked and (not record.anomalous or bool(masks)),
            split=self.split,
            dataset="realiad",
            extra={"view": record.view} if record.view else {},
        )

    def tell(self, pictures: Path) -> None:
        """Put what is missing in words."""
        if self.missing:
            names = examples(relative_name(path, self.root) for path in self.missing)
            self.notes.problems.append(
                f"{len(self.missing)} pictures named in the lists are not there: {names}"
            )
        if self.absent:
            place = relative_name(pictures, self.root)
            self.notes.warnings.append(f"no pictures in {place} of {examples(self.absent)}")
        others = [name for name in _RESOLUTIONS if name and is_folder(self.root / name)]
        if len(others) > 1:
            self.notes.warnings.append(f"of {examples(others)}, {pictures.name} is read")


@dataclass(frozen=True, slots=True)
class _Record:
    """One picture of a list, its files below the class's folder."""

    folder: Path
    kind: str
    anomalous: bool
    image_text: str
    mask_text: str

    @property
    def image(self) -> Path:
        return self.folder / self.image_text

    @property
    def masks(self) -> tuple[Path, ...]:
        """The mask that is there; none for a normal picture."""
        mask = self.folder / self.mask_text
        return (mask,) if self.anomalous and self.mask_text and mask.is_file() else ()

    @property
    def view(self) -> str:
        """The camera, C1 to C5: the last part but one of the file's name; "" if it has none."""
        parts = self.image.stem.split("_")
        return parts[-2] if len(parts) > 1 and parts[-2][:1] == "C" else ""


def _records(file: Path, split: str) -> Iterator[tuple[str, bool, str, str]]:
    """(kind, anomalous, image, mask) of every record of one split, in file order."""
    content = read_json(file)
    records = content.get(split) if isinstance(content, dict) else None
    if not isinstance(records, list):
        raise DatasetError(f"{file} should have a list {split!r} of records, as Real-IAD's do.")
    meta = content.get("meta")
    normal = meta.get("normal_class", "OK") if isinstance(meta, dict) else "OK"
    for number, record in enumerate(records):
        kind, image, mask = _cells(record, f"{file}, {split} record {number}")
        yield kind, kind != normal, image, mask


def _cells(record: Any, where: str) -> tuple[str, str, str]:
    if not isinstance(record, dict):
        raise DatasetError(f"{where}: should be an object, got {record!r}.")
    cells = [record.get(key) for key in ("anomaly_class", "image_path", "mask_path")]
    kind, image, mask = cells[0], cells[1], cells[2] or ""
    if not (isinstance(kind, str) and isinstance(image, str) and isinstance(mask, str)):
        raise DatasetError(
            f"{where}: anomaly_class and image_path should be text, mask_path text or null, "
            f"got {cells}."
        )
    return kind, image, mask


def _spread(samples: list[Sample], most: int) -> list[Sample]:
    """At most so many of each class and label, evenly spaced, in the order given."""
    groups: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.class_name, sample.label].append(sample)
    chosen: set[int] = set()
    for group in groups.values():
        count = min(most, len(group))
        chosen |= {id(group[place * len(group) // count]) for place in range(count)}
    return [sample for sample in samples if id(sample) in chosen]
