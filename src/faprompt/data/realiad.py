"""Real-IAD (Wang et al., CVPR 2024): one JSON list per class beside a tree of `OK` and `NG`.

More auxiliary data to train on; the FAPrompt paper does not use it. `test` has both labels,
`train` normal pictures only. The list gives the label, since a defective part has views that
show nothing of its defect. Lists lie in `realiad_jsons/`, or beside the class folders. Of several
resolutions the finest is read; of several lists the one of all five views.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from faprompt.data.layout_reader import LayoutReader, Match, Reading, make_sample
from faprompt.data.picture_files import (
    examples,
    is_folder,
    list_files,
    list_folders,
    read_json_list,
)
from faprompt.errors import DatasetError
from faprompt.records import Sample

_RESOLUTIONS = ("realiad_1024", "realiad_512", "realiad_256", "realiad_raw", "")
_LISTS = ("realiad_jsons/realiad_jsons", "realiad_jsons", "realiad_jsons/realiad_jsons_sv", "")


class RealIadReader(LayoutReader[tuple[Path, list[Path]]]):
    """Real-IAD as published, or with its lists beside the class folders."""

    name = "realiad"
    title = "Real-IAD: 30 kinds of objects from five sides, to train on"
    layout = "realiad_1024/<class>/OK|NG/… with lists realiad_jsons/realiad_jsons/<class>.json"
    splits = ("test", "train")

    def find(self, root: Path) -> Match[tuple[Path, list[Path]]] | None:
        """Return the folder of the classes and the lists named like them; no list is opened."""
        for resolution in _RESOLUTIONS:
            pictures = root / resolution
            folders = list_folders(pictures)
            classes = {f.name for f in folders if is_folder(f / "OK") or is_folder(f / "NG")}
            for place in _LISTS if classes else ():
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
    if not isinstance(record, dict):
        raise DatasetError(f"{where}: should be an object, got {record!r}.")
    cells = [record.get(key) for key in ("anomaly_class", "image_path", "mask_path")]
    kind, image, mask = cells[0], cells[1], cells[2] or ""
    if not (isinstance(kind, str) and isinstance(image, str) and isinstance(mask, str)):
        raise DatasetError(
            f"{where}: anomaly_class and image_path should be text, mask_path text or null, "
            f"got {cells}."
        )
    has_mask = kind != normal and bool(mask) and (folder / mask).is_file()
    masks = (folder / mask,) if has_mask else ()
    sample = make_sample(folder / image, None if kind == normal else kind, folder.name, masks)
    # the view, C1 to C5, is the last part but one of the file name
    view = [*sample.image_path.stem.split("_")[-2:-1], ""][0]
    return replace(sample, extra={"view": view}) if view.startswith("C") else sample
