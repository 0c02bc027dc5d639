"""ELPV (Buerhop-Lutz et al., EU PVSEC 2018): solar cells and the chance that each is defective.

`labels.csv` has no header and is parted by blanks: picture, probability, `mono` or `poly`. As in
the paper a cell of probability 1 is anomalous, a cell of probability 0 is normal, and the
uncertain ones in between are left out. The paper tests on a quarter of the normal cells; drawn in
the order of the file, ours are exactly those of the published converters. There are no masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from faprompt.data.base import Dataset, Notes, build_dataset, only_split
from faprompt.data.files import examples, list_folders, list_images, relative_name
from faprompt.data.subsample import SUBSETS, take_subset
from faprompt.errors import DatasetError
from faprompt.records import Sample

_LIST, _PICTURES = "labels.csv", "images"
_PLACES = ("", "src/elpv_dataset/data", "elpv_dataset/data")  # from the root
_PROBABILITIES = (0.0, 1 / 3, 2 / 3, 1.0)
_TYPES = ("mono", "poly")
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class _Row:
    image: Path
    probability: float  # one of _PROBABILITIES
    cell_type: str  # one of _TYPES


@dataclass(frozen=True, slots=True)
class ElpvReader:
    """ELPV's repository, new or old, or its data folder alone."""

    name: str = "elpv"
    title: str = "ELPV: photovoltaic cells in electroluminescence"
    layout: str = "labels.csv (picture, probability, mono or poly) beside images/*.png"
    subsets: tuple[str, ...] = SUBSETS

    def recognise(self, root: Path) -> str | None:
        """A `labels.csv` whose first line is a row of ELPV's, and `images` beside it."""
        base = _base(root)
        return None if base is None else f"{relative_name(base / _LIST, root)} of ELPV's form"

    def read(self, root: Path, *, split: str = "test", subset: str = "paper") -> Dataset:
        """The defective cells and a quarter of the sound ones; with "all", all sound ones."""
        only_split(self.name, split)
        base = _base(root)
        if base is None:
            found = examples(path.name for path in list_folders(root)) or "no folders"
            raise DatasetError(f"{root} is not {self.name}: expected {self.layout}; found {found}.")
        notes = Notes()
        rows = _parse(base)
        certain = [row for row in rows if row.probability in (0.0, 1.0)]
        if len(certain) < len(rows):
            count = len(rows) - len(certain)
            notes.warnings.append(f"{count} cells of probability 1/3 or 2/3 are left out")
        # drawn before the missing are dropped, so that a lost file changes nothing else
        kept = take_subset([_sample(row) for row in certain], subset, notes)
        _note_files(base, root, rows, notes)
        present = [sample for sample in kept if sample.image_path.is_file()]
        reason = self.recognise(root) or ""
        return build_dataset(self.name, root, present, notes, split=split, reason=reason)


def _base(root: Path) -> Path | None:
    """The folder that holds the list and the pictures."""
    for place in _PLACES:
        base = root / place
        if (base / _LIST).is_file() and (base / _PICTURES).is_dir() and _is_ours(base / _LIST):
            return base
    return None


def _is_ours(file: Path) -> bool:
    try:
        with file.open(encoding="utf-8-sig") as stream:
            cells = stream.readline().split()
    except (OSError, UnicodeDecodeError):
        return False
    return len(cells) == 3 and cells[2] in _TYPES


def _parse(base: Path) -> list[_Row]:
    file = base / _LIST
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file} cannot be read: {error}.") from error
    rows = [
        _parse_row(line.split(), base, f"{file}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if len({row.image for row in rows}) < len(rows):
        raise DatasetError(f"{file} names a picture twice; a fresh copy does not.")
    return rows


def _parse_row(cells: list[str], base: Path, where: str) -> _Row:
    if len(cells) != 3 or cells[2] not in _TYPES:
        raise DatasetError(f"{where}: should be picture, probability, mono or poly, got {cells}.")
    try:
        value = float(cells[1])
    except ValueError:
        value = float("nan")
    near = [known for known in _PROBABILITIES if abs(value - known) < _TOLERANCE]
    if not near:
        raise DatasetError(f"{where}: probability should be 0, 1/3, 2/3 or 1, got {cells[1]}.")
    return _Row(base / cells[0], near[0], cells[2])


def _sample(row: _Row) -> Sample:
    return Sample(
        image_path=row.image,
        label=int(row.probability),
        class_name="elpv",
        defect_type=row.cell_type,
        dataset="elpv",
    )


def _note_files(base: Path, root: Path, rows: list[_Row], notes: Notes) -> None:
    """Pictures of the list that are not there, and pictures that are not on the list."""
    listed = {row.image for row in rows}
    missing = [relative_name(path, root) for path in listed if not path.is_file()]
    if missing:
        names = examples(sorted(missing))
        notes.problems.append(f"{len(missing)} pictures named in {_LIST} are not there: {names}")
    others = [path for path in list_images(base / _PICTURES) if path not in listed]
    if others:
        names = examples(relative_name(path, root) for path in others)
        notes.warnings.append(f"{len(others)} pictures are not in {_LIST} and left out: {names}")
