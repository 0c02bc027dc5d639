"""`meta.json`, the list that AnomalyCLIP, FAPrompt, AdaCLIP, ADer and others keep of a dataset.

Split → class → records with `img_path`, `mask_path`, `cls_name`, `specie_name`, `anomaly`. Files
made by other projects work unchanged: split names in capitals, dummy records, paths of another
machine, doubled slashes and backslashes, masks that are all blank because there are none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faprompt.data.base import Dataset, Notes, build_dataset, rename_dataset
from faprompt.data.files import examples, natural_key, relative_name
from faprompt.data.masks import is_blank_mask
from faprompt.data.paths import PathFinder
from faprompt.data.published_counts import dataset_of_classes
from faprompt.errors import DatasetError
from faprompt.records import Sample

FILE_NAME = "meta.json"
_NAME = "meta_json"
RECORD_KEYS = ("img_path", "mask_path", "cls_name", "specie_name", "anomaly")
_SHAPE = '{"test": {"<class>": [{"img_path": …, "anomaly": 0 or 1, …}, …]}}'


@dataclass(frozen=True, slots=True)
class MetaJsonReader:
    """Reads the list at a folder's root, a `meta_<name>.json` there, or the file itself."""

    name: str = _NAME
    title: str = "a list of labelled pictures, as AnomalyCLIP and its kin write it"
    layout: str = "meta.json at the root, or the path of such a file"

    def recognise(self, root: Path) -> str | None:
        """The list itself; not another tool's file of that name."""
        files = _meta_files(root)
        return examples(file.name for file in files) if files else None

    def read(self, root: Path, *, split: str = "test") -> Dataset:
        """The records of one split, named after what the records say they are."""
        file = _the_file(root)
        folder = root if root.is_dir() else root.parent
        reading = _Reading(folder, PathFinder(folder))
        for class_key, record, where in _records(file, split):
            reading.add(class_key, record, where)
        samples = reading.samples(split)
        reading.tell(file.name)
        dataset = build_dataset(
            self.name, folder, samples, reading.notes, split=split, reason=file.name
        )
        return rename_dataset(dataset, _name_of(samples, default=self.name))


@dataclass(frozen=True, slots=True)
class _Row:
    """One record with its files found."""

    image: Path
    mask: Path | None
    mask_named: bool
    label: int
    class_name: str
    defect_type: str
    extra: dict[str, str]


@dataclass(slots=True)
class _Reading:
    """Records on their way to samples, with what there is to say about them."""

    root: Path
    finder: PathFinder
    notes: Notes = field(default_factory=Notes)
    rows: list[_Row] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    without_path: int = 0
    renamed: set[tuple[str, str]] = field(default_factory=set)

    def add(self, class_key: str, record: dict[str, Any], where: str) -> None:
        """Take one record, or count why it is not taken."""
        image_text = _text(record, "img_path", where)
        if not image_text:
            self.without_path += 1
            return
        image = self.finder.find(image_text)
        if image is None:
            self.missing.append(image_text)
            return
        class_name = _text(record, "cls_name", where) or class_key
        if class_name != class_key:
            self.renamed.add((class_key, class_name))
        mask_text = _text(record, "mask_path", where)
        mask = self.finder.find(mask_text) if mask_text else None
        self.rows.append(
            _Row(
                image=image,
                mask=None if mask == image else mask,  # a shortened path may hit the picture
                mask_named=bool(mask_text),
                label=_label(record, where),
                class_name=class_name,
                defect_type=_text(record, "specie_name", where),
                extra=_extra(record),
            )
        )

    def samples(self, split: str) -> list[Sample]:
        """All rows as samples; a class whose masks are all missing or blank has image labels."""
        masked = self._classes_with_masks()
        return [self._sample(row, row.class_name in masked, split) for row in self.rows]

    def _sample(self, row: _Row, class_has_masks: bool, split: str) -> Sample:
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
            split=split,
            dataset=_NAME,
            extra=row.extra,
        )

    def _classes_with_masks(self) -> set[str]:
        found: set[str] = set()
        for row in self.rows:  # opens one mask per class, more only where masks are blank
            if row.label and row.mask and row.class_name not in found and not _blank(row.mask):
                found.add(row.class_name)
        named = {row.class_name for row in self.rows if row.label and row.mask_named}
        if named - found:
            self.notes.warnings.append(
                f"all masks of {examples(sorted(named - found))} are missing or blank: "
                "image labels only"
            )
        silent = {row.class_name for row in self.rows if row.label} - named
        if silent and found:
            names = examples(sorted(silent))
            self.notes.warnings.append(f"no masks for {names}: image labels only")
        return found

    def tell(self, file_name: str) -> None:
        """Put the counts in words."""
        say, blame = self.notes.warnings.append, self.notes.problems.append
        if self.missing:
            blame(
                f"{len(self.missing)} pictures named in {file_name} are not below the folder: "
                f"{examples(self.missing)}"
            )
        if self.without_path:
            say(f"{self.without_path} records without img_path are skipped")
        if self.finder.rescued:
            say(f"{self.finder.rescued} paths of another machine were found under the folder")
        if self.renamed:
            pairs = (f"{record} under {key}" for key, record in sorted(self.renamed))
            say(f"cls_name differs from the class it is listed under, and wins: {examples(pairs)}")
        self._tell_repeats()

    def _tell_repeats(self) -> None:
        labels: dict[Path, list[int]] = {}
        for row in self.rows:
            labels.setdefault(row.image, []).append(row.label)
        twice = [path for path, found in labels.items() if len(found) > 1]
        torn = [path for path in twice if len(set(labels[path])) > 1]
        if twice:
            self.notes.warnings.append(f"listed more than once: {self._names(twice)}")
        if torn:
            self.notes.problems.append(f"listed as normal and as anomalous: {self._names(torn)}")

    def _names(self, paths: list[Path]) -> str:
        return examples(relative_name(path, self.root) for path in paths)


def _meta_files(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if root.suffix.casefold() == ".json" else []
    if _is_list(root / FILE_NAME, if_broken=True):
        return [root / FILE_NAME]
    names = sorted(root.glob("meta_*.json"), key=lambda path: natural_key(path.name))
    return [path for path in names if _is_list(path, if_broken=False)]


def _is_list(file: Path, *, if_broken: bool) -> bool:
    """True when a JSON file has our splits; other tools call their files `meta.json` too."""
    if not file.is_file():
        return False
    try:
        content = _parse(file)
    except DatasetError:
        return if_broken
    if not isinstance(content, dict):
        return False
    splits = [value for key, value in content.items() if key.casefold() in ("train", "test")]
    return any(isinstance(value, dict) for value in splits)


def _the_file(root: Path) -> Path:
    files = [root / FILE_NAME] if (root / FILE_NAME).is_file() else _meta_files(root)
    if not files:
        raise DatasetError(f"{root} holds no {FILE_NAME}; give its folder or the file itself.")
    if len(files) > 1:
        names = examples(file.name for file in files)
        raise DatasetError(f"{root} holds several lists ({names}); give the path of one of them.")
    return files[0]


def _records(file: Path, split: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(class key, record, place for messages) of one split, in file order."""
    classes = _split_of(file, _load(file), split)
    for class_key, records in classes.items():
        if not isinstance(records, list):
            raise DatasetError(f"{file}, class {class_key!r}: should be a list of records.")
        for number, record in enumerate(records):
            where = f"{file}, class {class_key!r}, record {number}"
            if not isinstance(record, dict):
                raise DatasetError(f"{where}: should be an object, got {record!r}.")
            yield class_key, record, where


def _load(file: Path) -> dict[str, Any]:
    content = _parse(file)
    if not isinstance(content, dict):
        found = type(content).__name__
        raise DatasetError(f"{file} should look like {_SHAPE}; it holds a {found}.")
    return content


def _parse(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{file} is no readable JSON: {error}.") from error


def _split_of(file: Path, content: dict[str, Any], split: str) -> dict[str, Any]:
    keys = [key for key in content if key.casefold() == split.casefold()]
    if len(keys) != 1:
        found = examples(map(repr, content)) or "nothing"
        raise DatasetError(f"{file} should have one {split!r} entry; its entries are {found}.")
    classes = content[keys[0]]
    if not isinstance(classes, dict):
        raise DatasetError(f"{file}, entry {keys[0]!r}: should look like {_SHAPE}.")
    return classes


def _text(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DatasetError(f"{where}: {key} should be text, got {value!r}.")
    return value if value.strip() else ""


def _label(record: dict[str, Any], where: str) -> int:
    value = record.get("anomaly")
    if value not in (0, 1, "0", "1"):
        raise DatasetError(f"{where}: anomaly should be 0 or 1, got {value!r}.")
    return int(value)


def _extra(record: dict[str, Any]) -> dict[str, str]:
    others = {key: value for key, value in record.items() if key not in RECORD_KEYS}
    return {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in others.items()
    }


def _blank(mask: Path) -> bool:
    try:
        return is_blank_mask(mask)
    except DatasetError:  # damaged, but it is somebody's mask; reading it will tell
        return False


def _name_of(samples: list[Sample], *, default: str) -> str:
    """What the records call their dataset, or whose classes they name."""
    told = {sample.extra.get("dataset_name", "") for sample in samples}
    if len(told) == 1 and "" not in told:
        return told.pop()
    classes = frozenset(sample.class_name for sample in samples)
    return dataset_of_classes(classes) or default
