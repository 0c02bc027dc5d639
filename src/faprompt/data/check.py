"""Open every file of a labelled folder and report its faults, for `faprompt datasets check`."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from faprompt.data.dataset import ClassCount, Dataset
from faprompt.data.dataset_catalog import (
    DatasetFacts,
    compare_counts,
    dataset_facts,
    published_counts,
)
from faprompt.data.known_readers import read_dataset
from faprompt.data.masks import read_mask
from faprompt.data.picture_files import examples, path_examples, relative_name
from faprompt.data.remarks import (
    PictureFacts,
    blank_remarks,
    contradiction_remarks,
    copy_remarks,
    find_copies,
    inverted_remarks,
)
from faprompt.errors import FapromptError, ImageReadError
from faprompt.files import natural_key
from faprompt.imaging.decoding import DICOM_EXTENSIONS, open_picture
from faprompt.imaging.image_reading import MAX_PIXELS, read_image, read_picture_header
from faprompt.records import Sample
from faprompt.work import ProgressCallback, no_progress

_FORMAT_OF_EXTENSION = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG",
    ".bmp": "BMP", ".dib": "BMP", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WebP",
    ".dcm": "DICOM", ".dicom": "DICOM",
}  # fmt: skip
_ANSWERS = {True: "yes", False: "no", None: "the paper does not have it"}


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Facts on one picture file."""

    digest: str  # SHA-256 of the content; "" if the file cannot be opened
    fault: str = ""  # why the picture cannot be read
    size: tuple[int, int] | None = None  # (height, width) as displayed
    other_format: str = ""  # the content's format if the extension says another
    turned: bool = False  # whether EXIF turns or mirrors the picture


@dataclass(frozen=True, slots=True)
class DatasetCheck:
    """The result of `check_dataset`."""

    dataset: str
    root: Path
    split: str
    reason: str  # why the folder was read as this dataset
    classes: Mapping[str, ClassCount]
    published: Mapping[str, tuple[int, int]]  # class -> (normal, anomalous); {} if unpublished
    matches_paper: bool | None  # None if the paper does not have the dataset
    problems: tuple[str, ...]  # to be repaired; not all of them prevent an evaluation
    warnings: tuple[str, ...]
    usable: bool  # whether metrics can be computed as it is
    unmasked: tuple[str, ...] = ()  # every picture whose mask is missing
    orphan_masks: tuple[str, ...] = ()  # every mask whose picture is missing
    copies: tuple[tuple[str, ...], ...] = ()  # groups of files with equal content
    facts: DatasetFacts | None = None  # None for your own pictures

    @property
    def normal(self) -> int:
        """Number of normal pictures."""
        return sum(count.normal for count in self.classes.values())

    @property
    def anomalous(self) -> int:
        """Number of anomalous pictures."""
        return sum(count.anomalous for count in self.classes.values())

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for `--json`."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "recognised_by": self.reason,
            "normal": self.normal,
            "anomalous": self.anomalous,
            "classes": {name: asdict(count) for name, count in self.classes.items()},
            "published": {
                name: dict(zip(("normal", "anomalous"), pair, strict=True))
                for name, pair in self.published.items()
            },
            "matches_paper": self.matches_paper,
            "usable": self.usable,
            "problems": list(self.problems),
            "warnings": list(self.warnings),
            "unmasked": list(self.unmasked),
            "orphan_masks": list(self.orphan_masks),
            "copies": [list(group) for group in self.copies],
            "licence": self.facts.licence if self.facts else None,
        }


def check_dataset(
    root: str | Path,
    *,
    dataset: str = "auto",
    split: str = "test",
    subset: str = "paper",
    progress: ProgressCallback = no_progress,
) -> DatasetCheck:
    """Read a folder like `read_dataset`, then open every picture and every mask.

    The result has the counts beside the paper's, and the faults: lost masks and pictures, masks
    of another size, unreadable files, copies, empty masks, masks that look inverted. `progress`
    is called after each picture with "check", pictures done and all pictures.

    Raises:
        ConfigError: there is no such dataset.
        DatasetError: the folder cannot be read as a dataset at all.
    """
    found = read_dataset(root, dataset, split=split, subset=subset)
    files = _OpenedFiles(found.root)
    for done, sample in enumerate(found.samples, start=1):
        files.open(sample)
        progress("check", done, len(found))
    counts = found.counts()
    orphans = found.orphan_lines()
    blocking = (*found.problems, *dict.fromkeys(files.bad_masks))
    return DatasetCheck(
        dataset=found.name,
        root=found.root,
        split=split,
        reason=found.reason,
        classes=counts,
        published=published_counts(found.name) if split == "test" else {},
        matches_paper=compare_counts(found.name, counts, split=split).matches,
        problems=(*blocking, *orphans, *files.picture_problems()),
        warnings=(
            *(line for line in found.warnings if line not in orphans),
            *_undefined_metrics(found),
            *files.warnings(found.name),
        ),
        usable=not blocking and _has_metrics(found, files.unreadable()),
        unmasked=tuple(map(files.name, found.unmasked)),
        orphan_masks=tuple(map(files.name, found.orphan_masks)),
        copies=tuple(tuple(map(files.name, group)) for group, _ in find_copies(files.pictures)),
        facts=dataset_facts(found.name),
    )


def describe(check: DatasetCheck) -> str:
    """Return the check as lines of plain text for a terminal."""
    lines = [
        f"{check.dataset}: {check.normal} normal and {check.anomalous} anomalous pictures "
        f"({check.split} split)",
        f"recognised by {check.reason}",
        "",
        *_class_table(check),
        "",
        f"equals the paper's counts: {_ANSWERS[check.matches_paper]}",
        f"can be evaluated: {_ANSWERS[check.usable]}",
    ]
    if check.facts:
        lines.append(f"licence: {check.facts.licence}")
    for title, found in (("problems", check.problems), ("warnings", check.warnings)):
        lines += [f"{title}:", *(f"  - {line}" for line in found)] if found else []
    return "\n".join(lines)


def inspect_picture(path: Path) -> FileFacts:
    """Decode a whole picture file, as a run does, and report its faults; raise nothing."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return FileFacts("", fault=f"{error.strerror or error}")
    digest = hashlib.sha256(content).hexdigest()
    if not content:
        return FileFacts(digest, fault="the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about sizes and tags that do no harm
            # the ending tells of a DICOM file without its preamble, and bytes have none
            named = path.suffix.casefold() in DICOM_EXTENSIONS
            return _decode(path if named else content, digest, path.suffix.casefold())
    except ImageReadError as error:
        reason = str(error).removeprefix(f"{len(content)} bytes: ").removeprefix(f"{path}: ")
        reason = reason.rstrip(".")
        return FileFacts(digest, fault=reason)


def _decode(content: bytes | Path, digest: str, extension: str) -> FileFacts:
    header = read_picture_header(content)
    if header.kind == "JPEG" and isinstance(content, bytes):
        _decode_small(content)
    else:
        read_image(content)
    expected = _FORMAT_OF_EXTENSION.get(extension, header.kind)
    return FileFacts(
        digest,
        size=header.image_size,
        other_format=header.kind if header.kind != expected else "",
        turned=header.orientation != 1,
    )


def _decode_small(content: bytes) -> None:
    """Decode a JPEG at an eighth of its size, which reads every byte as well."""
    picture = open_picture(io.BytesIO(content), max_pixels=MAX_PIXELS)
    picture.draft("L", (max(1, picture.width // 8), max(1, picture.height // 8)))
    try:
        picture.load()
    except Exception as error:  # libjpeg fails in many ways on broken files
        raise ImageReadError(f"the picture is truncated or corrupt ({error})") from error


@dataclass(slots=True)
class _OpenedFiles:
    """Collects the facts on all files of a dataset."""

    root: Path
    files: dict[Path, FileFacts] = field(default_factory=dict)
    pictures: list[PictureFacts] = field(default_factory=list)
    bad_masks: list[str] = field(default_factory=list)  # faults that prevent pixel metrics
    turned_with_mask: list[Path] = field(default_factory=list)

    def open(self, sample: Sample) -> None:
        """Open the masks of a sample, and its picture unless another region of it was opened."""
        path = sample.image_path
        if path not in self.files:
            self.files[path] = inspect_picture(path)
        facts, marked = self.files[path], None
        if (sample.mask_paths or sample.drawn_mask) and not facts.fault:
            if facts.turned:
                self.turned_with_mask.append(path)
            try:
                marked = float(read_mask(sample, image_size=facts.size).mean())
            except FapromptError as error:
                self.bad_masks.append(str(error).rstrip("."))
        self.pictures.append(PictureFacts(sample, facts.digest, marked, facts.fault))

    def unreadable(self) -> set[Path]:
        return {path for path, facts in self.files.items() if facts.fault}

    def picture_problems(self) -> Iterator[str]:
        """Yield the faults of pictures that a run would skip or count twice."""
        for path in sorted(self.unreadable(), key=lambda path: natural_key(self.name(path))):
            yield f"{self.name(path)} cannot be read: {self.files[path].fault}"
        yield from contradiction_remarks(self.root, self.pictures)

    def warnings(self, dataset: str) -> Iterator[str]:
        """Yield what is harmless, or perhaps harmless."""
        yield from copy_remarks(self.root, self.pictures)
        other = [path for path, facts in self.files.items() if facts.other_format]
        if other:
            named = examples(f"{self.name(p)} ({self.files[p].other_format})" for p in other)
            yield f"{len(other)} hold another format than their name says: {named}"
        if blank := list(blank_remarks(self.root, self.pictures)):
            yield from blank
            if dataset == "visa":
                yield "VisA's masks hold small class ids and look black; these hold only 0"
        yield from inverted_remarks(self.pictures)
        if self.turned_with_mask:
            named = path_examples(self.turned_with_mask, self.root)
            yield f"turned by EXIF, so the mask has to be drawn as shown: {named}"

    def name(self, path: Path) -> str:
        return relative_name(path, self.root)


def _class_table(check: DatasetCheck) -> list[str]:
    """Return the lines of a table: a row per class, the paper's counts in the last column."""
    from tabulate import tabulate

    published = check.published if len(check.published) > 1 else {}  # a pooled name is any name
    rows = [["class", "normal", "anomalous", "masks", "paper"]]
    for name in dict.fromkeys((*check.classes, *published)):
        count = check.classes.get(name, ClassCount(0, 0, 0))
        numbers = map(str, (count.normal, count.anomalous, count.with_mask))
        rows.append([name, *numbers, _published_cell(check, name)])
    align = ("left", "right", "right", "right", "left")
    table = tabulate(rows, tablefmt="plain", colalign=align, disable_numparse=True)
    return [f"  {line}".rstrip() for line in table.splitlines()]


def _published_cell(check: DatasetCheck, name: str) -> str:
    is_pooled = len(check.published) == len(check.classes) == 1
    pair = next(iter(check.published.values())) if is_pooled else check.published.get(name)
    if pair is None:
        return ""
    misprint = check.facts.misprints.get(name) if check.facts else None
    return f"{pair[0]} + {pair[1]}" + (f" ({misprint})" if misprint else "")


def _undefined_metrics(dataset: Dataset) -> Iterator[str]:
    """Yield a line for metrics that are undefined for some class or for all."""
    if dataset.split != "test":
        return
    counts = dataset.counts()
    one_sided = [name for name, count in counts.items() if not (count.normal and count.anomalous)]
    if one_sided:
        yield f"image figures are undefined, one label only, for {examples(one_sided)}"
    if not any(count.with_mask for count in counts.values()):
        yield "pixel figures are undefined: there are no masks"


def _has_metrics(dataset: Dataset, unreadable: set[Path]) -> bool:
    """Return whether a class has both labels or a mask; a train split needs only pictures."""
    readable = [sample for sample in dataset if sample.image_path not in unreadable]
    if dataset.split != "test":
        return bool(readable)
    normal, anomalous = (
        {sample.class_name for sample in readable if sample.label == label} for label in (0, 1)
    )
    return bool(normal & anomalous) or any(sample.mask_paths for sample in readable)
