"""What every list of pictures has in common: files found, labels gathered, oddities told.

`meta.json`, tables and COCO annotations differ in how a record is written; from there on they
are read alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faprompt.data.dataset import Dataset, Notes, build_dataset, rename_dataset
from faprompt.data.masks import is_blank_mask
from faprompt.data.picture_files import PathFinder, examples, relative_name
from faprompt.data.published_counts import dataset_of_classes
from faprompt.errors import DatasetError
from faprompt.records import DrawnMask, Sample


@dataclass(frozen=True, slots=True)
class ListedPicture:
    """One record with its files found."""

    image: Path
    label: int
    class_name: str
    defect_type: str = ""
    mask: Path | None = None
    mask_named: bool = False  # the record names a mask, found or not
    drawn: DrawnMask | None = None  # what `mask` holds of this picture, when it is no picture
    region: tuple[int, int, int, int] | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Listing:
    """Records on their way to samples, with what there is to say about them."""

    name: str  # the reader's
    file_name: str
    root: Path
    finder: PathFinder
    notes: Notes = field(default_factory=Notes)
    pictures: list[ListedPicture] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    without_path: int = 0
    own_classes: bool = True  # the records name their classes, so these may tell the dataset

    def find_image(self, text: str) -> Path | None:
        """The picture of a record; None when it has none or it is not there, which is counted."""
        if not text:
            self.without_path += 1
            return None
        image = self.finder.find(text)
        if image is None:
            self.missing.append(text)
        return image

    def find_mask(self, text: str, image: Path) -> Path | None:
        """The mask of a record; a shortened path may hit the picture, which is no mask."""
        mask = self.finder.find(text) if text else None
        return None if mask == image else mask

    def dataset(self, split: str) -> Dataset:
        """All records as samples; named after what they say they are.

        A class whose masks are all missing or blank has image labels only.

        Raises:
            DatasetError: there is not a single picture.
        """
        masked = self._classes_with_masks()
        samples = [self._sample(row, row.class_name in masked, split) for row in self.pictures]
        self._tell()
        found = build_dataset(
            self.name, self.root, samples, self.notes, split=split, reason=self.file_name
        )
        return rename_dataset(found, self._dataset_name(samples))

    def _dataset_name(self, samples: list[Sample]) -> str:
        """What the records call their dataset, or whose classes they name."""
        told = {sample.extra.get("dataset_name", "") for sample in samples}
        if len(told) == 1 and "" not in told:
            return told.pop()
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
        found: set[str] = set()
        for row in self.pictures:  # opens one mask per class, more only where masks are blank
            if row.label and row.class_name not in found and _has_truth(row):
                found.add(row.class_name)
        named = {row.class_name for row in self.pictures if row.label and row.mask_named}
        if named - found:
            self.notes.warnings.append(
                f"all masks of {examples(sorted(named - found))} are missing or blank: "
                "image labels only"
            )
        silent = {row.class_name for row in self.pictures if row.label} - named
        if silent and found:
            names = examples(sorted(silent))
            self.notes.warnings.append(f"no masks for {names}: image labels only")
        return found

    def _tell(self) -> None:
        """Put the counts in words."""
        say, blame = self.notes.warnings.append, self.notes.problems.append
        if self.missing:
            blame(
                f"{len(self.missing)} pictures named in {self.file_name} are not below the folder: "
                f"{examples(self.missing)}"
            )
        if self.without_path:
            say(f"{self.without_path} records without a picture's path are skipped")
        if self.finder.rescued:
            say(f"{self.finder.rescued} paths of another machine were found under the folder")
        self._tell_repeats()

    def _tell_repeats(self) -> None:
        labels: dict[tuple[Path, object], list[int]] = {}
        for row in self.pictures:
            labels.setdefault((row.image, row.region), []).append(row.label)
        twice = [place for place, found in labels.items() if len(found) > 1]
        torn = [place for place in twice if len(set(labels[place])) > 1]
        if twice:
            self.notes.warnings.append(f"listed more than once: {self._names(twice)}")
        if torn:
            self.notes.problems.append(f"listed as normal and as anomalous: {self._names(torn)}")

    def _names(self, places: list[tuple[Path, object]]) -> str:
        return examples(dict.fromkeys(relative_name(path, self.root) for path, _ in places))


def as_extra(others: Mapping[str, Any]) -> dict[str, str]:
    """Further keys of a record as text; what is no text becomes JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in others.items()
    }


def _has_truth(row: ListedPicture) -> bool:
    if row.drawn is not None or row.mask is None:
        return row.mask is not None
    try:
        return not is_blank_mask(row.mask)
    except DatasetError:  # damaged, but it is somebody's mask; reading it will tell
        return True
