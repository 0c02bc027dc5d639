"""Datasets with a list of labels beside the pictures: ELPV, HeadCT, VisA and Real-IAD."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from faprompt.data.class_trees import MVTEC_STYLE, class_folders
from faprompt.data.csv_table import Row, read_columns, read_rows
from faprompt.data.dataset import Dataset
from faprompt.data.dataset_catalog import published_counts
from faprompt.data.layout_reader import (
    SUBSETS,
    LayoutReader,
    Match,
    Reading,
    check_split,
    make_sample,
)
from faprompt.data.listing import as_object
from faprompt.data.picture_files import (
    examples,
    find_folder,
    folder_name,
    folders_beside,
    holds_images,
    is_folder,
    list_files,
    list_folders,
    list_images,
    read_json_list,
    relative_name,
)
from faprompt.errors import DatasetError
from faprompt.records import Sample

_LIST = "labels.csv"
_ELPV_PLACES = ("", "src/elpv_dataset/data", "elpv_dataset/data")  # from the root
_PROBABILITIES = (0.0, 1 / 3, 2 / 3, 1.0)
_TOLERANCE = 1e-3  # of a probability in the list
_CELL_TYPES = ("mono", "poly")
_HEAD_CT_FOLDERS = ("head_ct/head_ct", "head_ct")
_HEAD_CT_COLUMNS = ["id", "hemorrhage"]
_VISA_LIST = "split_csv/1cls.csv"
_VISA_COLUMNS = {"object", "split", "label", "image", "mask"}
_RESOLUTIONS = ("realiad_1024", "realiad_512", "realiad_256", "realiad_raw", "")
_REALIAD_LISTS = (
    *("realiad_jsons/realiad_jsons", "realiad_jsons"),
    *("realiad_jsons/realiad_jsons_sv", ""),
)


class ElpvReader(LayoutReader[Path]):
    """ELPV (Buerhop-Lutz et al., EU PVSEC 2018): solar cells and the chance of a defect.

    `labels.csv` has no header and is parted by blanks: picture, probability, `mono` or `poly`. As
    in the paper a cell of probability 1 is anomalous, a cell of probability 0 is normal, and the
    others are left out. The paper tests on a quarter of the normal cells; see `paper_normals`.
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


class VisaReader(LayoutReader[Path]):
    """VisA (Zou et al., ECCV 2022): its own tree with `split_csv/1cls.csv`, or an MVTec tree.

    The dataset's own script turns it into an MVTec tree (`VisA_pytorch/1cls/<class>/test/bad/…`)
    of the same pictures. Only `1cls.csv` gives the paper's split: the two `2cls` files put
    anomalous pictures into training.
    """

    name = "visa"
    title = "VisA: 12 kinds of objects"
    layout = f"<class>/Data/Images/Normal|Anomaly/* with {_VISA_LIST}, or an MVTec tree"
    splits = ("test", "train")

    def find(self, root: Path) -> Match[Path] | None:
        if (root / _VISA_LIST).is_file():
            return Match(root / _VISA_LIST, _VISA_LIST)
        if own := _own_folders(root):
            names = examples(folder.name for folder in own)
            return Match(own[0], f"Data/Images/Normal in {names}")
        tree = _find_tree(root)
        names = examples(map(folder_name, class_folders(tree))) if tree else ""
        return Match(tree, f"MVTec tree of VisA's {names}") if tree else None

    def read(self, root: Path, *, split: str = "test", subset: str = "paper") -> Dataset:
        check_split(self.name, split, self.splits)
        tree = _find_tree(root)
        if not (root / _VISA_LIST).is_file():
            if _own_folders(root):
                raise DatasetError(
                    f"{root} looks like VisA, but {_VISA_LIST} is missing and the folders alone "
                    "do not say which pictures are the test part; it is in the dataset's archive "
                    "and in the repository amazon-science/spot-diff."
                )
            two_class = find_folder(root, "2cls_fewshot", "2cls_highshot")
            if two_class and tree is None:
                raise DatasetError(
                    f"{root} holds only VisA's {two_class.name} form, which trains on anomalies "
                    "and has other counts; give the 1cls form."
                )
            if tree:
                return replace(MVTEC_STYLE, name=self.name).read(tree, split=split)
        return super().read(root, split=split)

    def samples(self, parts: Path, reading: Reading) -> list[Sample]:
        names = read_columns(parts)
        if not set(names) >= _VISA_COLUMNS:
            wanted = ", ".join(sorted(_VISA_COLUMNS))
            raise DatasetError(
                f"{parts} should have the columns {wanted}; it has {', '.join(names)}."
            )
        rows = read_rows(parts)
        every = [_read_row(row, reading.root) for row in rows]
        chosen = [
            sample
            for sample, row in zip(every, rows, strict=True)
            if row.cells["split"].casefold() == reading.split
        ]
        exists = reading.existing((s.image_path for s in chosen), source=_VISA_LIST)
        listed = {mask for sample in every for mask in sample.mask_paths}
        for class_name in {sample.class_name for sample in every}:
            masks = list_images(reading.root / class_name / "Data/Masks/Anomaly")
            reading.orphan_masks += [mask for mask in masks if mask not in listed]
        return reading.label_pixels([s for s in chosen if s.image_path in exists])


class RealIadReader(LayoutReader[tuple[Path, list[Path]]]):
    """Real-IAD (Wang et al., CVPR 2024): one JSON list per class beside a tree of `OK` and `NG`.

    More auxiliary data to train on; the FAPrompt paper does not use it. `test` has both labels,
    `train` normal pictures only. The list gives the label, since a defective part has views that
    show nothing of its defect. Lists lie in `realiad_jsons/`, or beside the class folders. Of
    several resolutions the finest is read; of several lists the one of all five views.
    """

    name = "realiad"
    title = "Real-IAD: 30 kinds of objects from five sides, to train on"
    layout = "realiad_1024/<class>/OK|NG/… with lists realiad_jsons/realiad_jsons/<class>.json"
    splits = ("test", "train")

    def find(self, root: Path) -> Match[tuple[Path, list[Path]]] | None:
        for resolution in _RESOLUTIONS:
            pictures = root / resolution
            folders = list_folders(pictures)
            classes = {f.name for f in folders if is_folder(f / "OK") or is_folder(f / "NG")}
            for place in _REALIAD_LISTS if classes else ():
                files = list_files(root / place, ".json")
                if named := [file for file in files if file.stem in classes]:
                    names = examples(file.stem for file in named)
                    reason = f"lists {place or '.'}/<class>.json of {names}"
                    return Match((pictures, files if place else named), reason)
        return None

    def samples(self, parts: tuple[Path, list[Path]], reading: Reading) -> list[Sample]:
        pictures, files = parts
        present = [file for file in files if is_folder(pictures / file.stem)]
        listed = [
            sample
            for file in present
            for sample in _read_list(file, pictures / file.stem, reading.split)
        ]
        exists = reading.existing((sample.image_path for sample in listed), source="the lists")
        samples = [sample for sample in listed if sample.image_path in exists]
        if reading.split == "train":
            samples = [replace(sample, has_pixel_label=True) for sample in samples]
        else:
            samples = reading.label_pixels(samples)
        absent = [file.stem for file in files if file not in present]
        reading.add_warning(f"no pictures in {reading.place(pictures)} of {{names}}", absent)
        others = [name for name in _RESOLUTIONS if name and is_folder(reading.root / name)]
        if len(others) > 1:
            reading.add_warning(f"of {{names}}, {pictures.name} is read", others)
        return samples


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
        try:
            near = [value for value in _PROBABILITIES if abs(float(row[1]) - value) < _TOLERANCE]
        except ValueError:
            near = []
        if not near:
            raise DatasetError(f"{where}: probability should be 0, 1/3, 2/3 or 1, got {row[1]}.")
        cells[place / row[0]] = near[0], row[2]
    return cells


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


def _own_folders(root: Path) -> list[Path]:
    return [path for path in list_folders(root) if is_folder(path / "Data/Images/Normal")]


def _find_tree(root: Path) -> Path | None:
    for folder in (root / "1cls", root):
        classes = set(map(folder_name, class_folders(folder)))
        if classes and classes <= published_counts("visa").keys():
            return folder if MVTEC_STYLE.recognise(folder) else None
    return None


def _read_row(row: Row, root: Path) -> Sample:
    label, image, mask = (row.cells[name] for name in ("label", "image", "mask"))
    if label.casefold() not in ("normal", "anomaly"):
        raise DatasetError(f"{row.where}: label should be normal or anomaly, got {label!r}.")
    if not image:
        raise DatasetError(f"{row.where}: there is no image path.")
    defect = "bad" if label.casefold() == "anomaly" else None  # the name in the MVTec tree
    return _listed(root, image, mask, defect, row.cells["object"])


def _listed(folder: Path, image: str, mask: str, defect: str | None, class_name: str) -> Sample:
    has_mask = defect is not None and bool(mask) and (folder / mask).is_file()
    masks = (folder / mask,) if has_mask else ()
    return make_sample(folder / image, defect, class_name, masks)


def _read_list(file: Path, folder: Path, split: str) -> list[Sample]:
    """Return the samples of one class and split, in file order."""
    content = read_json_list(file)
    records = content.get(split) if isinstance(content, dict) else None
    if not isinstance(records, list):
        raise DatasetError(f"{file} should have a list {split!r} of records, as Real-IAD's do.")
    meta = content.get("meta")
    normal = meta.get("normal_class", "OK") if isinstance(meta, dict) else "OK"
    return [
        _read_record(record, folder, normal, f"{file}, {split} record {number}")
        for number, record in enumerate(records)
    ]


def _read_record(record: Any, folder: Path, normal: str, where: str) -> Sample:
    record = as_object(record, where)
    cells = [record.get(key) for key in ("anomaly_class", "image_path", "mask_path")]
    kind, image, mask = cells[0], cells[1], cells[2] or ""
    if not (isinstance(kind, str) and isinstance(image, str) and isinstance(mask, str)):
        raise DatasetError(
            f"{where}: anomaly_class and image_path should be text, mask_path text or null, "
            f"got {cells}."
        )
    sample = _listed(folder, image, mask, None if kind == normal else kind, folder.name)
    # the view, C1 to C5, is the last part but one of the file name
    view = [*sample.image_path.stem.split("_")[-2:-1], ""][0]
    return replace(sample, extra={"view": view}) if view.startswith("C") else sample
