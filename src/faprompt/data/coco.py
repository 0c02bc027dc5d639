"""COCO annotations: a picture with an annotation is anomalous, one without is normal.

One instances file and a folder of pictures. Outlines and run lengths become the mask when it is
read; `pycocotools` is not needed. Boxes alone give image labels, unless asked otherwise, since
a filled box marks normal pixels too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faprompt.data.base import Dataset, only_split
from faprompt.data.files import examples, list_files, list_folders, list_images, read_json
from faprompt.data.listing import ListedPicture, Listing
from faprompt.data.masks import picture_size
from faprompt.data.paths import PathFinder, best_root
from faprompt.data.shapes import check_runs, decode_runs, outline_corners
from faprompt.errors import DatasetError, ImageReadError
from faprompt.records import DrawnMask

NORMAL_CATEGORIES = frozenset({"normal", "good", "ok", "background"})

_LISTS = ("images", "annotations", "categories")
_Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CocoReader:
    """Reads the file itself, or the one such file of a folder and of its `annotations/`."""

    name: str = "coco"
    title: str = "COCO annotations; pictures without one are normal"
    layout: str = "one instances .json at the root or in annotations/, pictures beside or images/"
    class_name: str | None = None  # None: the file's stem
    normal_categories: frozenset[str] = NORMAL_CATEGORIES  # these are no defects
    box_masks: bool = False  # fill a box that comes without an outline

    def recognise(self, root: Path) -> str | None:
        """`images`, `annotations` and `categories`, each a list."""
        files = _coco_files(root)
        return examples(file.name for file in files) if files else None

    def read(self, root: Path, *, split: str = "test") -> Dataset:
        """Every picture that is listed and there; a file is one split."""
        only_split(self.name, split)
        file = _the_file(root)
        book = _Book(file, self)
        place = best_root(picture_folders(file), [_file_name(file, r) for r in book.images])
        base = root if root.is_dir() else root.parent
        folder = base if place.is_relative_to(base) else place
        listing = Listing(self.name, file.name, folder, PathFinder(place), own_classes=False)
        for record in book.images:
            image = listing.find_image(_file_name(file, record))
            if image is not None:
                listing.pictures.append(book.picture(image, record))
        listing.notes.problems += book.problems()
        listing.notes.warnings += book.warnings(listing.pictures)
        return listing.dataset(split)


@dataclass(slots=True)
class _Book:
    """The content of one file, put in order."""

    file: Path
    reader: CocoReader
    images: list[_Record] = field(default_factory=list)
    counted: dict[Any, list[_Record]] = field(default_factory=dict)  # image id -> annotations
    names: dict[Any, str] = field(default_factory=dict)  # category id -> name
    faults: list[str] = field(default_factory=list)
    boxed: int = 0
    strays: int = 0

    def __post_init__(self) -> None:
        content = read_json(self.file)
        if not _is_coco(content):
            raise DatasetError(f"{self.file} should hold the lists {', '.join(_LISTS)}.")
        self.images = _records(self.file, content, "images")
        for category in _records(self.file, content, "categories"):
            self.names[_id(self.file, category, "category")] = str(category.get("name", ""))
        self._gather(_records(self.file, content, "annotations"))

    def _gather(self, annotations: list[_Record]) -> None:
        for image in self.images:
            key = _id(self.file, image, "image")
            if key in self.counted:
                raise DatasetError(f"{self.file} lists the image id {key!r} twice.")
            self.counted[key] = []
        normal = {name.casefold() for name in self.reader.normal_categories}
        for annotation in annotations:
            if self._category(annotation).strip().casefold() in normal:
                continue
            found = self.counted.get(_key(annotation, "image_id"))
            if found is None:
                self.strays += 1
            else:
                found.append(annotation)

    def _category(self, annotation: _Record) -> str:
        key = _key(annotation, "category_id")
        if key not in self.names:
            raise DatasetError(
                f"{self.file}, {_call(annotation)}: there is no category {key!r}; "
                f"the categories are {examples(map(repr, self.names)) or 'none'}."
            )
        return self.names[key]

    def picture(self, image: Path, record: _Record) -> ListedPicture:
        """One picture with the union of its counted annotations."""
        annotations = self.counted[record["id"]]
        drawn = self._drawn(image, record, annotations)
        kinds = sorted({self._category(annotation) for annotation in annotations})
        mask = self.file if annotations and drawn is not None else None
        return ListedPicture(
            image=image,
            label=int(bool(annotations)),
            class_name=self.reader.class_name or self.file.stem,
            defect_type="+".join(kinds) or "good",
            mask=mask,
            mask_named=mask is not None,
            drawn=drawn,
        )

    def _drawn(self, image: Path, record: _Record, annotations: list[_Record]) -> DrawnMask | None:
        """None when a part is missing: half a mask would call the other half normal."""
        size = _size(image, record)
        if size is None:
            return None
        polygons: list[tuple[float, ...]] = []
        runs: list[tuple[int, ...]] = []
        for annotation in annotations:
            try:
                shape = _shape(annotation, size, box_masks=self.reader.box_masks)
            except (ValueError, TypeError, OverflowError) as error:
                self.faults.append(f"{_call(annotation)} ({error})")
                return None
            if shape is None:
                self.boxed += 1
                return None
            polygons += shape.polygons
            runs += shape.runs
        return DrawnMask(size, tuple(polygons), tuple(runs))

    def problems(self) -> list[str]:
        """Annotations that cannot be drawn."""
        told = examples(self.faults)
        return [f"{len(self.faults)} cannot be drawn: {told}"] if self.faults else []

    def warnings(self, pictures: Sequence[ListedPicture]) -> list[str]:
        """What is left out, and why."""
        lines = []
        if self.boxed:
            whole = any(picture.mask for picture in pictures)
            meant = "left out of pixel figures" if whole else "image labels only"
            lines.append(f"{self.boxed} pictures have boxes without outlines: {meant}")
        if self.strays:
            lines.append(f"{self.strays} annotations belong to pictures that are not listed")
        listed = {picture.image for picture in pictures}
        folders = {path.parent for path in listed}
        beside = {path for folder in folders for path in list_images(folder)}
        if beside - listed:
            lines.append(f"{len(beside - listed)} pictures beside them are not listed, left out")
        return lines


def _shape(annotation: _Record, size: tuple[int, int], *, box_masks: bool) -> DrawnMask | None:
    """An annotation's segmentation; None when it has none. Everything is checked here."""
    given = annotation.get("segmentation")
    if isinstance(given, dict) and given:
        return DrawnMask(size, runs=(_runs(given, size),))
    if given and given != [[]]:
        return DrawnMask(size, tuple(map(_polygon, given)))
    box = annotation.get("bbox")
    if not box_masks or not box:
        return None
    x, y, width, height = map(float, box)
    corners = (x, y, x + width, y, x + width, y + height, x, y + height)
    return DrawnMask(size, (_polygon(corners),))


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
    """(height, width) as annotated; where the record is silent, the picture's own."""
    height, width = record.get("height"), record.get("width")
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        return height, width
    try:
        return picture_size(image)
    except ImageReadError:  # told when the picture itself is read
        return None


def _coco_files(root: Path) -> list[Path]:
    if root.is_file():
        files = [root] if root.suffix.casefold() == ".json" else []
    else:
        files = [*list_files(root, ".json"), *list_files(root / "annotations", ".json")]
    return [file for file in files if _holds_coco(file)]


def _holds_coco(file: Path) -> bool:
    try:
        return _is_coco(read_json(file))
    except DatasetError:
        return False


def _is_coco(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in _LISTS)


def _the_file(root: Path) -> Path:
    files = _coco_files(root)
    if not files:
        raise DatasetError(
            f"{root} holds no COCO annotations ({', '.join(_LISTS)} in one .json file); "
            "give its folder or the file itself."
        )
    if len(files) > 1:
        names = examples(file.name for file in files)
        raise DatasetError(
            f"{root} holds several annotation files ({names}); give the path of one of them."
        )
    return files[0]


def picture_folders(file: Path) -> list[Path]:
    """Where pictures are looked for: beside the file, above it, in `images/` and below that."""
    within = file.parent.name.casefold() == "annotations"
    bases = [file.parent.parent, file.parent] if within else [file.parent]
    places = [place for base in bases for place in (base, base / "images")]
    return [*places, *(below for place in places for below in list_folders(place))]


def _records(file: Path, content: _Record, key: str) -> list[_Record]:
    records = content[key]
    for at, record in enumerate(records):
        if not isinstance(record, dict):
            raise DatasetError(f"{file}, {key}, record {at}: should be an object, got {record!r}.")
    return records


def _id(file: Path, record: _Record, what: str) -> Any:
    key = _key(record, "id")
    if key is None:
        raise DatasetError(f"{file}: every {what} should have an id, a number or text.")
    return key


def _key(record: _Record, name: str) -> int | str | None:
    key = record.get(name)
    return key if isinstance(key, (int, str)) else None


def _file_name(file: Path, record: _Record) -> str:
    name = record.get("file_name")
    if not isinstance(name, str) or not name.strip():
        raise DatasetError(f"{file}, image {record.get('id')!r}: file_name should be text.")
    return name


def _call(annotation: _Record) -> str:
    return f"annotation {annotation.get('id', '?')}"
