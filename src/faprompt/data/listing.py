"""Records of a list of pictures as samples, whatever format the list has.

`meta.json`, tables and COCO annotations differ only in how a record is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faprompt.data.dataset import Dataset, Notes, build_dataset, rename_dataset
from faprompt.data.dataset_catalog import dataset_of_classes
from faprompt.data.masks import is_blank_mask
from faprompt.data.picture_files import PathFinder, examples, relative_name
from faprompt.errors import DatasetError
from faprompt.records import DrawnMask, Sample


@dataclass(frozen=True, slots=True)
class ListedPicture:
    """One record of a list, with its files found."""

    image: Path
    label: int
    class_name: str
    defect_type: str = ""
    mask: Path | None = None
    mask_named: bool = False  # whether the record names a mask, found or not
    drawn: DrawnMask | None = None  # what `mask` holds of this picture if it is no picture file
    region: tuple[int, int, int, int] | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Listing:
    """Collects the records of a list and turns them into a dataset."""

    name: str  # of the reader
    file_name: str
    root: Path
    finder: PathFinder
    notes: Notes = field(default_factory=Notes)
    pictures: list[ListedPicture] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    without_path: int = 0
    own_classes: bool = True  # the records name their classes, which may identify the dataset

    def find_image(self, text: str) -> Path | None:
        """Return the picture of a record; an absent or missing one is None and is counted."""
        if not text:
            self.without_path += 1
            return None
        image = self.finder.find(text)
        if image is None:
            self.missing.append(text)
        return image

    def find_mask(self, text: str, image: Path) -> Path | None:
        """Return the mask of a record; None if the shortened path leads to the picture itself."""
        mask = self.finder.find(text) if text else None
        return None if mask == image else mask

    def dataset(self, split: str) -> Dataset:
        """Return all records as a dataset, named by `dataset_name` or by the classes.

        A class whose masks are all missing or blank has image labels only.

        Raises:
            DatasetError: there is not a single picture.
        """
        masked = self._classes_with_masks()
        samples = [self._sample(row, row.class_name in masked, split) for row in self.pictures]
        self._note_lost_files()
        self._note_repeats()
        found = build_dataset(
            self.name, self.root, samples, self.notes, split=split, reason=self.file_name
        )
        return rename_dataset(found, self._dataset_name(samples))

    def _dataset_name(self, samples: list[Sample]) -> str:
        names = {sample.extra.get("dataset_name", "") for sample in samples}
        if len(names) == 1 and "" not in names:
            return names.pop()
        classes = frozenset(sample.class_name for sample in samples if self.own_classes)
        return dataset_of_classes(classes) or self.name

    def _sample(self, row: ListedPicture, class_has_masks: bool, split: str) -> Sample:
        masks = (row.mask,) if row.label and row.mask and class_has_masks else ()
        if row.label and class_has_masks and not masks:
            self.notes.unmasked.append(row.image)
        return Sample(
            image_path=row.image,
            label=row.label,
            class_name=row.class_name,
            defect_type=row.defect_type,
            mask_paths=masks,
            has_pixel_label=class_has_masks and (row.label == 0 or bool(masks)),
            region=row.region,
            split=split,
            dataset=self.name,
            extra=row.extra,
            drawn_mask=row.drawn if class_has_masks else None,
        )

    def _classes_with_masks(self) -> set[str]:
        anomalous = [row for row in self.pictures if row.label]
        found: set[str] = set()
        for row in anomalous:  # opens one mask per class, more only if masks are blank
            if row.class_name not in found and _has_mask(row):
                found.add(row.class_name)
        named = {row.class_name for row in anomalous if row.mask_named}
        if named - found:
            self.notes.warnings.append(
                f"all masks of {examples(sorted(named - found))} are missing or blank: "
                "image labels only"
            )
        unnamed = {row.class_name for row in anomalous} - named
        if unnamed and found:
            names = examples(sorted(unnamed))
            self.notes.warnings.append(f"no masks for {names}: image labels only")
        return found

    def _note_lost_files(self) -> None:
        warn = self.notes.warnings.append
        if self.missing:
            self.notes.problems.append(
                f"{len(self.missing)} pictures named in {self.file_name} are not below the folder: "
                f"{examples(self.missing)}"
            )
        if self.without_path:
            warn(f"{self.without_path} records without a picture's path are skipped")
        if self.finder.rescued:
            warn(f"{self.finder.rescued} paths of another machine were found under the folder")

    def _note_repeats(self) -> None:
        labels: dict[tuple[Path, object], list[int]] = {}
        for row in self.pictures:
            labels.setdefault((row.image, row.region), []).append(row.label)
        repeated = [place for place, own in labels.items() if len(own) > 1]
        contradicting = [place for place in repeated if len(set(labels[place])) > 1]
        if repeated:
            self.notes.warnings.append(f"listed more than once: {self._names(repeated)}")
        if contradicting:
            self.notes.problems.append(
                f"listed as normal and as anomalous: {self._names(contradicting)}"
            )

    def _names(self, places: list[tuple[Path, object]]) -> str:
        return examples(dict.fromkeys(relative_name(path, self.root) for path, _ in places))


def as_extra(others: Mapping[str, Any]) -> dict[str, str]:
    """Return further keys of a record as text, values of other types as JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in others.items()
    }


def _has_mask(row: ListedPicture) -> bool:
    if row.drawn is not None or row.mask is None:
        return row.mask is not None
    try:
        return not is_blank_mask(row.mask)
    except DatasetError:  # a damaged file is a mask all the same; its later use raises the error
        return True
