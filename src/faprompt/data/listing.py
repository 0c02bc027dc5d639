"""Records of a list of pictures as samples: `meta.json` here, tables and COCO in their files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from faprompt.data.dataset import Dataset, rename_dataset
from faprompt.data.dataset_catalog import dataset_of_classes
from faprompt.data.layout_reader import Reader, Reading
from faprompt.data.masks import is_blank_mask
from faprompt.data.picture_files import (
    PathFinder,
    examples,
    only_file,
    read_json_list,
)
from faprompt.errors import DatasetError
from faprompt.files import natural_key
from faprompt.records import Sample

_META_JSON = "meta.json"
_KEYS = ("img_path", "mask_path", "cls_name", "specie_name", "anomaly")
_OTHER_KEYS = {"images", "items", "normal"}  # of lists that other tools call `meta.json`
_SHAPE = '{"test": {"<class>": [{"img_path": …, "anomaly": 0 or 1, …}, …]}}'


@dataclass(slots=True)
class Listing:
    """Collects the records of a list and turns them into a dataset."""

    name: str  # of the reader
    file_name: str
    finder: PathFinder
    reading: Reading
    samples: list[Sample] = field(default_factory=list)
    naming_masks: set[str] = field(default_factory=set)  # classes whose records name masks
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

    def find_mask(self, text: str, image: Path) -> tuple[Path, ...]:
        """Return the mask of a record; () if the shortened path leads to the picture itself."""
        mask = self.finder.find(text) if text else None
        return () if mask in (None, image) else (mask,)

    def add(self, sample: Sample, *, names_mask: bool) -> None:
        """Add a record with the files that were found; its class gets pixel labels later."""
        self.samples.append(sample)
        if sample.label and names_mask:
            self.naming_masks.add(sample.class_name)

    def dataset(self) -> Dataset:
        """Return all records as a dataset, named by `dataset_name` or by the classes.

        A class whose masks are all missing or blank has image labels only.

        Raises:
            DatasetError: there is not a single picture.
        """
        masked = self._classes_with_masks()
        samples = [self._finished(sample, sample.class_name in masked) for sample in self.samples]
        self._note_lost_files()
        self._note_repeats()
        found = self.reading.dataset(self.name, samples, reason=self.file_name)
        return rename_dataset(found, self._dataset_name(samples))

    def _dataset_name(self, samples: list[Sample]) -> str:
        names = {sample.extra.get("dataset_name", "") for sample in samples}
        if len(names) == 1 and "" not in names:
            return names.pop()
        classes = frozenset(sample.class_name for sample in samples if self.own_classes)
        return dataset_of_classes(classes) or self.name

    def _finished(self, sample: Sample, class_has_masks: bool) -> Sample:
        masks = sample.mask_paths if sample.label and class_has_masks else ()
        if sample.label and class_has_masks and not masks:
            self.reading.unmasked.append(sample.image_path)
        return replace(
            sample,
            mask_paths=masks,
            has_pixel_label=class_has_masks and (sample.label == 0 or bool(masks)),
            split=self.reading.split,
            dataset=self.name,
            drawn_mask=sample.drawn_mask if class_has_masks else None,
        )

    def _classes_with_masks(self) -> set[str]:
        anomalous = [sample for sample in self.samples if sample.label]
        found: set[str] = set()
        for sample in anomalous:  # opens one mask per class, more only if masks are blank
            if sample.class_name not in found and _has_mask(sample):
                found.add(sample.class_name)
        unnamed = {sample.class_name for sample in anomalous} - self.naming_masks
        warn = self.reading.add_warning
        lost = "all masks of {names} are missing or blank: image labels only"
        warn(lost, sorted(self.naming_masks - found))
        warn("no masks for {names}: image labels only", sorted(unnamed) if found else ())
        return found

    def _note_lost_files(self) -> None:
        warn = self.reading.warnings.append
        if self.missing:  # not `add_problem`, since a file's name may hold braces
            self.reading.problems.append(
                f"{len(self.missing)} pictures named in {self.file_name} are not below the folder: "
                f"{examples(self.missing)}"
            )
        if self.without_path:
            warn(f"{self.without_path} records without a picture's path are skipped")
        if self.finder.rescued:
            warn(f"{self.finder.rescued} paths of another machine were found under the folder")

    def _note_repeats(self) -> None:
        labels: dict[tuple[Path, object], list[int]] = {}
        for sample in self.samples:
            labels.setdefault((sample.image_path, sample.region), []).append(sample.label)
        repeated = {place[0]: None for place, own in labels.items() if len(own) > 1}
        contradicting = {place[0]: None for place, own in labels.items() if len(set(own)) > 1}
        self.reading.add_warning("listed more than once: {names}", repeated)
        self.reading.add_problem("listed as normal and as anomalous: {names}", contradicting)


def as_object(item: Any, where: str) -> dict[str, Any]:
    """Return a record of a JSON list; refuse one that is no object."""
    if not isinstance(item, dict):
        raise DatasetError(f"{where}: should be an object, got {item!r}.")
    return item


def as_extra(others: Mapping[str, Any]) -> dict[str, str]:
    """Return further keys of a record as text, values of other types as JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in others.items()
    }


def _has_mask(sample: Sample) -> bool:
    if sample.drawn_mask is not None or not sample.mask_paths:
        return bool(sample.mask_paths)
    try:
        return not is_blank_mask(sample.mask_paths[0])
    except DatasetError:  # a damaged file is a mask all the same; its later use raises the error
        return True


class MetaJsonReader(Reader):
    """Reads `meta.json` in a folder, the only `meta_<name>.json` there, or a file given by path.

    AnomalyCLIP, FAPrompt, AdaCLIP, ADer and others use the format: split -> class -> records with
    the keys `_KEYS`. Their files are read unchanged: with split names in capitals, records without
    a picture, paths of another machine, and blank masks that stand for missing ones.
    """

    name = "meta_json"
    title = "a list of labelled pictures, as AnomalyCLIP and its kin write it"
    layout = "meta.json at the root, or the path of such a file"

    def recognise(self, root: Path) -> str | None:
        files = _meta_files(root)
        if root.is_file():
            files = [file for file in files if not _is_other_list(file)]
        return examples(file.name for file in files) or None

    def read(self, root: Path, *, split: str = "test") -> Dataset:
        own = root / _META_JSON
        files = [own] if own.is_file() else _meta_files(root)
        file = only_file(files, root, kind="lists", wanted=_META_JSON)
        folder = root if root.is_dir() else root.parent
        listing = Listing(self.name, file.name, PathFinder(folder), Reading(folder, split))
        renamed: set[tuple[str, str]] = set()
        for class_key, record, where in _records(file, split):
            image = listing.find_image(_text(record, "img_path", where))
            if image is None:
                continue
            class_name = _text(record, "cls_name", where) or class_key
            if class_name != class_key:
                renamed.add((class_key, class_name))
            mask = _text(record, "mask_path", where)
            label = record.get("anomaly")
            if label not in (0, 1, "0", "1"):
                raise DatasetError(f"{where}: anomaly should be 0 or 1, got {label!r}.")
            sample = Sample(
                image,
                int(label),
                class_name,
                _text(record, "specie_name", where),
                listing.find_mask(mask, image),
                extra=as_extra({k: v for k, v in record.items() if k not in _KEYS}),
            )
            listing.add(sample, names_mask=bool(mask))
        listing.reading.add_warning(
            "cls_name differs from the class it is listed under, and wins: {names}",
            [f"{record} under {key}" for key, record in sorted(renamed)],
        )
        return listing.dataset()


def _meta_files(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if root.suffix.casefold() == ".json" else []
    if _has_splits(root / _META_JSON, if_broken=True):
        return [root / _META_JSON]
    files = sorted(root.glob("meta_*.json"), key=lambda path: natural_key(path.name))
    return [file for file in files if _has_splits(file, if_broken=False)]


def _has_splits(file: Path, *, if_broken: bool) -> bool:
    """Return whether a JSON file has our splits; other tools have a `meta.json` too."""
    if not file.is_file():
        return False
    try:
        content = read_json_list(file)
    except DatasetError:
        return if_broken
    splits = content.items() if isinstance(content, dict) else ()
    return any(key.casefold() in ("train", "test") and isinstance(v, dict) for key, v in splits)


def _is_other_list(file: Path) -> bool:
    """Return whether the file is another list: of rows, with `images`, `items` or `normal`."""
    try:
        content = read_json_list(file)
    except DatasetError:
        return False
    is_object = isinstance(content, dict)
    return isinstance(content, list) or (is_object and bool(_OTHER_KEYS & content.keys()))


def _records(file: Path, split: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the class key, the record and its place of every record of a split, in file order."""
    content = read_json_list(file)
    if not isinstance(content, dict):
        found = type(content).__name__
        raise DatasetError(f"{file} should look like {_SHAPE}; it holds a {found}.")
    keys = [key for key in content if key.casefold() == split.casefold()]
    if len(keys) != 1:
        found = examples(map(repr, content)) or "nothing"
        raise DatasetError(f"{file} should have one {split!r} entry; its entries are {found}.")
    classes = content[keys[0]]
    if not isinstance(classes, dict):
        raise DatasetError(f"{file}, entry {keys[0]!r}: should look like {_SHAPE}.")
    for class_key, records in classes.items():
        if not isinstance(records, list):
            raise DatasetError(f"{file}, class {class_key!r}: should be a list of records.")
        for number, record in enumerate(records):
            where = f"{file}, class {class_key!r}, record {number}"
            yield class_key, as_object(record, where), where


def _text(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DatasetError(f"{where}: {key} should be text, got {value!r}.")
    return value if value.strip() else ""
