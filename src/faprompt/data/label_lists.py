"""Datasets with a list of labels beside the pictures and without masks: ELPV and HeadCT."""

from __future__ import annotations

from pathlib import Path

from faprompt.data.csv_table import read_columns, read_rows
from faprompt.data.layout_reader import SUBSETS, LayoutReader, Match, Reading, make_sample
from faprompt.data.picture_files import folders_beside, holds_images, list_images, relative_name
from faprompt.errors import DatasetError
from faprompt.records import Sample

_LIST = "labels.csv"
_ELPV_PLACES = ("", "src/elpv_dataset/data", "elpv_dataset/data")  # from the root
_PROBABILITIES = (0.0, 1 / 3, 2 / 3, 1.0)
_TOLERANCE = 1e-3  # of a probability in the list
_CELL_TYPES = ("mono", "poly")
_HEAD_CT_FOLDERS = ("head_ct/head_ct", "head_ct")
_HEAD_CT_COLUMNS = ["id", "hemorrhage"]


class ElpvReader(LayoutReader[Path]):
    """ELPV (Buerhop-Lutz et al., EU PVSEC 2018): solar cells and the chance of a defect.

    `labels.csv` has no header and is parted by blanks: picture, probability, `mono` or `poly`. As
    in the paper a cell of probability 1 is anomalous, a cell of probability 0 is normal, and the
    others are left out. The paper tests on a quarter of the normal cells. It is drawn in the
    order of the file, so ours are the cells of the published converters.
    """

    name = "elpv"
    title = "ELPV: photovoltaic cells in electroluminescence"
    layout = "labels.csv (picture, probability, mono or poly) beside images/*.png"
    subsets = SUBSETS

    def find(self, root: Path) -> Match[Path] | None:
        for place in (root / name for name in _ELPV_PLACES):
            if _is_elpv(place):
                return Match(place, f"{relative_name(place / _LIST, root)} of ELPV's form")
        return None

    def samples(self, parts: Path, reading: Reading) -> list[Sample]:
        cells = _read_cells(parts)
        certain = [
            Sample(image, int(probability), "elpv", cell_type)
            for image, (probability, cell_type) in cells.items()
            if probability in (0.0, 1.0)
        ]
        if left_out := len(cells) - len(certain):
            reading.warnings.append(f"{left_out} cells of probability 1/3 or 2/3 are left out")
        # drawn before missing pictures are dropped, so that a lost file changes nothing else
        kept = reading.take_subset(certain)
        exists = reading.existing(cells, source=_LIST)
        others = [path for path in list_images(parts / "images") if path not in cells]
        reading.add_warning("{count} pictures are not in labels.csv and left out: {names}", others)
        return [sample for sample in kept if sample.image_path in exists]


class HeadCtReader(LayoutReader[Path]):
    """HeadCT (Kaggle, user felipekitamura): CT slices with and without a haemorrhage.

    `labels.csv` has the header `id, hemorrhage`; picture 7 is `007.png`. The pictures lie in
    `head_ct/head_ct/`, or in `head_ct/` of an unnested archive. The paper tests on all 200.
    """

    name = "headct"
    title = "HeadCT: haemorrhages in CT slices of the head"
    layout = "labels.csv (id, hemorrhage) beside head_ct/head_ct/000.png or head_ct/000.png"

    def find(self, root: Path) -> Match[Path] | None:
        folders = [root / name for name in _HEAD_CT_FOLDERS if holds_images(root / name)]
        if not folders or not (root / _LIST).is_file():
            return None
        place = relative_name(folders[0], root)
        try:
            is_certain = read_columns(root / _LIST) == _HEAD_CT_COLUMNS
        except DatasetError:
            is_certain = False
        return Match(folders[0], f"labels.csv (id, hemorrhage) beside {place}/", is_certain)

    def found(self, root: Path) -> str:
        return super().found(root) + ("" if (root / _LIST).is_file() else f" and no {_LIST}")

    def samples(self, parts: Path, reading: Reading) -> list[Sample]:
        root = reading.root
        labels = _read_head_ct(root / _LIST)
        numbered: dict[int, list[Path]] = {number: [] for number in labels}
        unlisted: list[Path] = []
        for image in list_images(parts):
            number = int(image.stem) if image.stem.isdecimal() else -1
            numbered.get(number, unlisted).append(image)
        missing = [str(number) for number, images in numbered.items() if not images]
        reading.add_problem("{count} ids of labels.csv have no picture: {names}", missing)
        for number, images in numbered.items():
            several = images if len(images) > 1 else []
            reading.add_problem(f"id {number} of labels.csv could be any of {{names}}", several)
        reading.add_warning("{count} not in labels.csv and left out: {names}", unlisted)
        beside: list[Path | str] = [*folders_beside(root, [parts])]
        if parts == root / _HEAD_CT_FOLDERS[0] and holds_images(root / _HEAD_CT_FOLDERS[1]):
            beside.append(f"{_HEAD_CT_FOLDERS[1]}/*")
        reading.add_warning("left out: {names}", beside)
        return [
            make_sample(images[0], "hemorrhage" if labels[number] else None, "brain")
            for number, images in numbered.items()
            if len(images) == 1
        ]


def _is_elpv(place: Path) -> bool:
    try:
        with (place / _LIST).open(encoding="utf-8-sig") as stream:
            cells = stream.readline().split()
    except (OSError, UnicodeDecodeError):
        return False
    return len(cells) == 3 and cells[2] in _CELL_TYPES and (place / "images").is_dir()


def _read_cells(place: Path) -> dict[Path, tuple[float, str]]:
    """Return the probability and the type of each cell, in the order of the list."""
    file = place / _LIST
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file} cannot be read: {error}.") from error
    cells: dict[Path, tuple[float, str]] = {}
    for number, line in enumerate(lines, start=1):
        if not (row := line.split()):
            continue
        where = f"{file}, line {number}"
        if len(row) != 3 or row[2] not in _CELL_TYPES:
            raise DatasetError(f"{where}: should be picture, probability, mono or poly, got {row}.")
        if place / row[0] in cells:
            raise DatasetError(f"{where} names a picture twice; a fresh copy does not.")
        cells[place / row[0]] = _probability(row[1], where), row[2]
    return cells


def _probability(text: str, where: str) -> float:
    try:
        near = [value for value in _PROBABILITIES if abs(float(text) - value) < _TOLERANCE]
    except ValueError:
        near = []
    if not near:
        raise DatasetError(f"{where}: probability should be 0, 1/3, 2/3 or 1, got {text}.")
    return near[0]


def _read_head_ct(file: Path) -> dict[int, int]:
    """Return id -> 0 normal, 1 haemorrhage."""
    columns = read_columns(file)
    if columns != _HEAD_CT_COLUMNS:
        found = ", ".join(columns) or "nothing"
        raise DatasetError(f"{file} should have the header id, hemorrhage; it has {found}.")
    labels: dict[int, int] = {}
    for row in read_rows(file):
        number, label = row.cells["id"], row.cells["hemorrhage"]
        if not number.isdecimal() or label not in ("0", "1"):
            raise DatasetError(f"{row.where}: should be an id and 0 or 1, got '{number},{label}'.")
        if int(number) in labels:
            raise DatasetError(f"{row.where}: id {int(number)} stands twice.")
        labels[int(number)] = int(label)
    return labels
