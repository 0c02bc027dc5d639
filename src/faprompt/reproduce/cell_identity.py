"""Identify what decides the figures of a cell, by content, and keep records as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faprompt.clip.weights import backbone_files
from faprompt.config import from_mapping, to_mapping
from faprompt.data import Dataset
from faprompt.data.picture_files import relative_name
from faprompt.files import file_digest, write_atomically
from faprompt.methods.registry import FITTED_OPTIONS, method_class
from faprompt.model_folder import read_config
from faprompt.reproduce.experiment_parts import MethodEntry


def content_digest(dataset: Dataset) -> str:
    """Return the SHA-256 of names, labels, groups, regions and file contents of all samples.

    Every picture and mask is read. Sizes and modification times do not count, because a redrawn
    mask can have the size and the time of the old one. The place of the folder does not count.
    """
    found = hashlib.sha256(f"{dataset.name}/{dataset.split}".encode())
    known: dict[Path, str] = {}  # one file may hold several regions
    for sample in dataset.samples:
        files = (sample.image_path, *sample.mask_paths)
        for file in files:
            known[file] = known.get(file) or _content(file)
        row = [
            sample.label, sample.class_name, sample.defect_type, sample.region,
            sample.has_pixel_label,
            *((relative_name(file, dataset.root), known[file]) for file in files),
        ]  # fmt: skip
        found.update(repr(row).encode("utf-8", errors="surrogateescape"))
    return found.hexdigest()


def _content(file: Path) -> str:
    try:
        return file_digest(file)
    except OSError:
        return "unreadable"


def backbone_stamp(backbone: str) -> dict[str, str]:
    """Return the name of a backbone and a digest of the files it is read from.

    A file or a folder counts by content alone, so that it may move and may not be replaced.
    The tag of a downloaded backbone names its weights, and they are not looked for here.
    """
    files = backbone_files(backbone)
    if not files:
        return {"name": backbone}
    name, _, suffix = backbone.rpartition(":")
    contents = {file.name: _content(file) for file in files}
    return {"files": digest(contents), "activation": suffix if name else ""}


def resolved_options(method: MethodEntry) -> dict[str, Any]:
    """Return every option of a method with its value, whether the config names it or not.

    Options that are fitted to the backbone where the config does not set them are marked,
    because the same number written down is not fitted.
    """
    config = from_mapping(
        method_class(method.name).config_class, method.all_options, what=f"{method.name} options"
    )
    values = to_mapping(config)
    fitted = [name for name in FITTED_OPTIONS if name in values and name not in method.options]
    return values | {name: f"{values[name]}, fitted to the backbone" for name in fitted}


def sources_stamp(method: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Return a digest of the files that a method's options name, such as normal pictures.

    It is empty where there are none; errors as in `Method.option_sources`.
    """
    cls = method_class(method)
    config = from_mapping(cls.config_class, options, what=f"{method} options")
    sources = cls.option_sources(config)
    return {"sources": digest({"files": sources})} if sources else {}


def model_digest(folder: Path) -> str:
    """Return the SHA-256 of a model folder's config and weights."""
    config = read_config(folder)
    weights = file_digest(folder / "model.safetensors")
    return digest({"config": config, "weights": weights})


def digest(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain data; the order of keys does not count."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write plain data as JSON, in a folder that is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=2, ensure_ascii=False, default=str) + "\n"
    # a file name that is no UTF-8 becomes an escape of JSON
    write_atomically(path, text.encode("utf-8", errors="backslashreplace"))


def read_record(path: Path, **wanted: Any) -> dict[str, Any] | None:
    """Return a record that has these values; None for others, and for files that are broken."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return record if all(record[name] == value for name, value in wanted.items()) else None
    except (OSError, ValueError, KeyError, TypeError):  # absent, cut off or another program's
        return None
