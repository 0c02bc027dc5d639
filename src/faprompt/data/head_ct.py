"""HeadCT (Kaggle, user felipekitamura): slices with and without a haemorrhage, image labels only.

`labels.csv` has the header `id, hemorrhage`, with a blank in it; picture 7 is `007.png`. The
pictures lie in `head_ct/head_ct/`, or in `head_ct/` where the archive was unnested. The file
decides the labels, not the order. The paper tests on all 200 slices.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from faprompt.data.base import Dataset, Notes, build_dataset, only_split
from faprompt.data.files import (
    examples,
    folders_beside,
    holds_images,
    list_folders,
    list_images,
    relative_name,
)
from faprompt.errors import DatasetError
from faprompt.records import Sample

_FILE = "labels.csv"
_FOLDERS = ("head_ct/head_ct", "head_ct")
_COLUMNS = ["id", "hemorrhage"]


@dataclass(frozen=True, slots=True)
class HeadCtReader:
    """HeadCT as Kaggle gives it, nested or not."""

    name: str = "headct"
    title: str = "HeadCT: haemorrhages in CT slices of the head"
    layout: str = "labels.csv (id, hemorrhage) beside head_ct/head_ct/000.png or head_ct/000.png"

    def recognise(self, root: Path) -> str | None:
        """The file with this header, and the folder with pictures."""
        pictures = _pictures(root)
        if pictures is None or _header(root / _FILE) != _COLUMNS:
            return None
        return f"{_FILE} ({', '.join(_COLUMNS)}) beside {relative_name(pictures, root)}/"

    def read(self, root: Path, *, split: str = "test") -> Dataset:
        """The pictures that `labels.csv` names; there is no train split."""
        only_split(self.name, split)
        pictures = _pictures(root)
        if pictures is None or not (root / _FILE).is_file():
            names = [path.name for path in list_folders(root)]
            found = examples(names) or "no folders"
            table = "" if (root / _FILE).is_file() else f" and no {_FILE}"
            raise DatasetError(
                f"{root} is not {self.name}: expected {self.layout}; found {found}{table}."
            )
        notes = Notes()
        samples = [
            Sample(image, label, "brain", "hemorrhage" if label else "good", dataset=self.name)
            for image, label in _pair(_labels(root / _FILE), list_images(pictures), root, notes)
        ]
        _note_left_out(root, pictures, notes)
        reason = self.recognise(root) or _FILE
        return build_dataset(self.name, root, samples, notes, split=split, reason=reason)


def _pictures(root: Path) -> Path | None:
    """The one level to read, the nested one where both have pictures."""
    return next((root / name for name in _FOLDERS if holds_images(root / name)), None)


def _header(file: Path) -> list[str]:
    """The names of the columns without blanks around them; [] when there is nothing to read."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            return [name.strip().casefold() for name in next(csv.reader(stream), [])]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _labels(file: Path) -> dict[int, int]:
    """id -> 0 normal, 1 haemorrhage."""
    labels: dict[int, int] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.reader(stream)
            header = [name.strip().casefold() for name in next(rows, [])]
            if header != _COLUMNS:
                wanted, found = ", ".join(_COLUMNS), ", ".join(header) or "nothing"
                raise DatasetError(f"{file} should have the header {wanted}; it has {found}.")
            for row in filter(None, rows):
                number, label = _row(row, f"{file}, line {rows.line_num}")
                if number in labels:
                    raise DatasetError(f"{file}, line {rows.line_num}: id {number} stands twice.")
                labels[number] = label
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{file} cannot be read: {error}.") from error
    return labels


def _row(row: list[str], where: str) -> tuple[int, int]:
    cells = [cell.strip() for cell in row]
    if len(cells) != 2 or not cells[0].isdecimal() or cells[1] not in ("0", "1"):
        raise DatasetError(f"{where}: should be an id and 0 or 1, got {','.join(row)!r}.")
    return int(cells[0]), int(cells[1])


def _pair(
    labels: dict[int, int], images: list[Path], root: Path, notes: Notes
) -> list[tuple[Path, int]]:
    """Pictures and labels met by number, so that id 7 finds `007.png`."""
    numbered: dict[int, list[Path]] = defaultdict(list)
    for image in images:
        numbered[int(image.stem) if image.stem.isdecimal() else -1].append(image)
    unlisted = [image for number in numbered.keys() - labels for image in numbered[number]]
    missing = [str(number) for number in labels if number not in numbered]
    several = [number for number in labels if len(numbered.get(number, ())) > 1]
    if missing:
        notes.problems.append(f"{len(missing)} ids of {_FILE} have no picture: {examples(missing)}")
    for number in several:
        names = examples(relative_name(image, root) for image in numbered[number])
        notes.problems.append(f"id {number} of {_FILE} could be any of {names}")
    if unlisted:
        names = examples(sorted(relative_name(image, root) for image in unlisted))
        notes.warnings.append(f"{len(unlisted)} not in {_FILE} and left out: {names}")
    return [
        (numbered[number][0], label)
        for number, label in labels.items()
        if len(numbered.get(number, ())) == 1
    ]


def _note_left_out(root: Path, pictures: Path, notes: Notes) -> None:
    beside = [relative_name(path, root) for path in folders_beside(root, [pictures])]
    if pictures == root / _FOLDERS[0] and holds_images(root / _FOLDERS[1]):
        beside.append(f"{_FOLDERS[1]}/*")
    if beside:
        notes.warnings.append(f"left out: {examples(beside)}")
