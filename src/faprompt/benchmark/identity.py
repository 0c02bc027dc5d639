"""What decides a cell's figures, as digests: the same words, the same figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faprompt.config import from_mapping
from faprompt.data import Dataset
from faprompt.data.files import relative_name
from faprompt.methods.registry import method_class
from faprompt.model_folder import read_config


def content_digest(dataset: Dataset) -> str:
    """SHA-256 over names, labels, groups, masks, regions and file sizes of all samples.

    Where the folder lies does not count, so a moved dataset is the same.
    """
    found = hashlib.sha256(f"{dataset.name}/{dataset.split}".encode())
    for sample in dataset.samples:
        files = (sample.image_path, *sample.mask_paths)
        row = [
            sample.label, sample.class_name, sample.defect_type, sample.region,
            sample.has_pixel_label,
            *((relative_name(file, dataset.root), _size(file)) for file in files),
        ]  # fmt: skip
        found.update(repr(row).encode("utf-8", errors="surrogateescape"))
    return found.hexdigest()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1


def backbone_stamp(backbone: str) -> str:
    """A backbone's name, with the size of its file where it is one: that tells most mix-ups."""
    place = Path(backbone)
    return f"{place.name} ({_size(place)} bytes)" if place.is_file() else backbone


def sources_stamp(method: str, options: Mapping[str, Any]) -> dict[str, str]:
    """A digest of the files that a method's options name and read, such as normal pictures.

    Empty where there are none. Errors as in `Method.option_sources`.
    """
    cls = method_class(method)
    config = from_mapping(cls.config_class, options, what=f"{method} options")
    told = cls.option_sources(config)
    return {"sources": digest({"files": told})} if told else {}


def model_digest(folder: Path) -> str:
    """SHA-256 over a model folder's config and weights."""
    config = read_config(folder)
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return digest({"config": config, "weights": weights})


def digest(values: Mapping[str, Any]) -> str:
    """SHA-256 over plain data, whatever the order of its keys."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
