"""COCO annotations: a picture with an annotation is anomalous, one without is normal.

One instances file and a folder of pictures. Outlines and run lengths are drawn when the mask is
read. A box without an outline gives an image label only, since a filled box would mark normal
pixels too. The class is the stem of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faprompt.data.dataset import Dataset
from faprompt.data.layout_reader import Reader, Reading, check_split
from faprompt.data.listing import Listing, as_object
from faprompt.data.masks import picture_size
from faprompt.data.outlines import check_runs, decode_runs, outline_corners
from faprompt.data.picture_files import (
    PathFinder,
    best_root,
    examples,
    json_object,
    list_files,
    list_folders,
    list_images,
    only_file,
    read_json_list,
)
from faprompt.errors import DatasetError, ImageReadError
from faprompt.records import DrawnMask, Sample

NORMAL_CATEGORIES = frozenset({"normal", "good", "ok", "background"})  # they are no defects

_LISTS = ("images", "annotations", "categories")
_Record = dict[str, Any]


class CocoReader(Reader):
    """Reads a file, or the only such file of a folder and of its `annotations/`; one split."""

    name = "coco"
    title = "COCO annotations; pictures without one are normal"
    layout = "one instances .json at the root or in annotations/, pictures beside or images/"

    def recognise(self, root: Path) -> str | None:
        return examples(file.name for file in _coco_files(root)) or None

    def read(self, root: Path, *, split: str = "test") -> Dataset:
        check_split(self.name, split)
        wanted = f"COCO annotations ({', '.join(_LISTS)} in one .json file)"
        file = only_file(_coco_files(root), root, kind="annotation files", wanted=wanted)
        annotations = _Annotations(file)
        names = [_file_name(file, record) for record in annotations.images]
        place = best_root(_picture_folders(file), names)
        base = root if root.is_dir() else root.parent
        folder = base if place.is_relative_to(base) else place
        reading, finder = Reading(folder, split), PathFinder(place)
        listing = Listing(self.name, file.name, finder, reading, own_classes=False)
        for name, record in zip(names, annotations.images, strict=True):
            image = listing.find_image(name)
            if image is not None:
                sample = annotations.sample(image, record)
                listing.add(sample, names_mask=bool(sample.mask_paths))
        annotations.report(listing)
        return listing.dataset()


@dataclass(slots=True)
class _Annotations:
    """The content of one file, with the annotations of each picture."""

    file: Path
    images: list[_Record] = field(default_factory=list)
    counted: dict[Any, list[_Record]] = field(default_factory=dict)  # image id -> annotations
    categories: dict[Any, str] = field(default_factory=dict)  # id -> name
    faults: list[str] = field(default_factory=list)  # annotations that cannot be drawn
    boxed: int = 0  # pictures with a box without an outline
    strays: int = 0  # annotations without a picture

    def __post_init__(self) -> None:
        content = read_json_list(self.file)
        self.images = _records(self.file, content, "images")
        for category in _records(self.file, content, "categories"):
            self.categories[self._id(category, "category")] = str(category.get("name", ""))
        for image in self.images:
            key = self._id(image, "image")
            if key in self.counted:
                raise DatasetError(f"{self.file} lists the image id {key!r} twice.")
            self.counted[key] = []
        for annotation in _records(self.file, content, "annotations"):
            if self._category(annotation).strip().casefold() in NORMAL_CATEGORIES:
                continue
            found = self.counted.get(_key(annotation, "image_id"))
            if found is None:
                self.strays += 1
            else:
                found.append(annotation)

    def sample(self, image: Path, record: _Record) -> Sample:
        """Return one picture with the union of its annotations."""
        annotations = self.counted[record["id"]]
        drawn = self._draw(image, record, annotations)
        return Sample(
            image,
            int(bool(annotations)),
            self.file.stem,
            "+".join(sorted(set(map(self._category, annotations)))) or "good",
            (self.file,) if annotations and drawn is not None else (),
            drawn_mask=drawn,
        )

    def report(self, listing: Listing) -> None:
        """Note what cannot be drawn and what is left out."""
        reading = listing.reading
        reading.add_problem("{count} cannot be drawn: {names}", self.faults)
        if self.boxed:
            has_masks = any(sample.mask_paths for sample in listing.samples)
            told = "left out of pixel figures" if has_masks else "image labels only"
            reading.warnings.append(f"{self.boxed} pictures have boxes without outlines: {told}")
        if self.strays:
            told = "annotations belong to pictures that are not listed"
            reading.warnings.append(f"{self.strays} {told}")
        listed = {sample.image_path for sample in listing.samples}
        folders = {path.parent for path in listed}
        beside = {path for folder in folders for path in list_images(folder)} - listed
        reading.add_warning("{count} pictures beside them are not listed, left out", beside)

    def _id(self, record: _Record, what: str) -> int | str:
        key = _key(record, "id")
        if key is None:
            raise DatasetError(f"{self.file}: every {what} should have an id, a number or text.")
        return key

    def _category(self, annotation: _Record) -> str:
        key = _key(annotation, "category_id")
        if key not in self.categories:
            raise DatasetError(
                f"{self.file}, {_label(annotation)}: there is no category {key!r}; "
                f"the categories are {examples(map(repr, self.categories)) or 'none'}."
            )
        return self.categories[key]

    def _draw(self, image: Path, record: _Record, annotations: list[_Record]) -> DrawnMask | None:
        """Return None if a part is missing: half a mask would call the other half normal."""
        size = _size(image, record)
        if size is None:
            return None
        polygons: list[tuple[float, ...]] = []
        runs: list[tuple[int, ...]] = []
        for annotation in annotations:
            try:
                shape = _shape(annotation, size)
            except (ValueError, TypeError, OverflowError) as error:
                self.faults.append(f"{_label(annotation)} ({error})")
                return None
            if shape is None:
                self.boxed += 1
                return None
            polygons += shape.polygons
            runs += shape.runs
        return DrawnMask(size, tuple(polygons), tuple(runs))


def _shape(annotation: _Record, size: tuple[int, int]) -> DrawnMask | None:
    """Return an annotation's segmentation, checked; None if it has none, but a box perhaps."""
    given = annotation.get("segmentation")
    if isinstance(given, dict) and given:
        return DrawnMask(size, runs=(_runs(given, size),))
    if given and given != [[]]:
        return DrawnMask(size, tuple(map(_polygon, given)))
    return None


def _polygon(given: Sequence[Any]) -> tuple[float, ...]:
    if isinstance(given, (str, dict)) or not isinstance(given, Sequence):
        raise ValueError(f"an outline should be a list of numbers, got {given!r}")
    return tuple(outline_corners(given).ravel().tolist())


def _runs(given: _Record, size: tuple[int, int]) -> tuple[int, ...]:
    counts = given.get("counts", ())
    runs = decode_runs(counts) if isinstance(counts, str) else tuple(map(int, counts))
    told = tuple(given.get("size", size))
    if told != size:
        raise ValueError(f"its run lengths are for {told}, its picture is {size}")
    check_runs(runs, size)
    return runs


def _size(image: Path, record: _Record) -> tuple[int, int] | None:
    """Return (height, width) as annotated, or else of the picture itself."""
    height, width = record.get("height"), record.get("width")
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        return height, width
    try:
        return picture_size(image)
    except ImageReadError:  # reported when the picture itself is read
        return None


def _coco_files(root: Path) -> list[Path]:
    if root.is_file():
        files = [root] if root.suffix.casefold() == ".json" else []
    else:
        files = [*list_files(root, ".json"), *list_files(root / "annotations", ".json")]
    return list(filter(_is_coco, files))


def _is_coco(file: Path) -> bool:
    content = json_object(file)
    return all(isinstance(content.get(key), list) for key in _LISTS)


def _picture_folders(file: Path) -> list[Path]:
    """Return the folders to search: beside the file, above it, `images/` and those below."""
    within = file.parent.name.casefold() == "annotations"
    bases = [file.parent.parent, file.parent] if within else [file.parent]
    places = [place for base in bases for place in (base, base / "images")]
    return [*places, *(below for place in places for below in list_folders(place))]


def _records(file: Path, content: _Record, key: str) -> list[_Record]:
    return [as_object(item, f"{file}, {key}, record {at}") for at, item in enumerate(content[key])]


def _key(record: _Record, name: str) -> int | str | None:
    key = record.get(name)
    return key if isinstance(key, (int, str)) else None


def _file_name(file: Path, record: _Record) -> str:
    name = record.get("file_name")
    if not isinstance(name, str) or not name.strip():
        raise DatasetError(f"{file}, image {record.get('id')!r}: file_name should be text.")
    return name


def _label(annotation: _Record) -> str:
    return f"annotation {annotation.get('id', '?')}"
