"""The `config.json` of model folders and exported folders: read and checked without torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faprompt.config import read_json
from faprompt.errors import ModelError

CONFIG, CARD = "config.json", "README.md"
FORMAT = 1

_KINDS: Mapping[str, tuple[type, ...]] = {
    "name": (str,), "license": (str,), "method": (str,), "options": (dict,), "backbone": (dict,),
    "transform": (dict,), "threshold": (float, int, type(None)), "training": (dict,),
}  # fmt: skip
_BACKBONE = ("name", "source", "fingerprint")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def read_config_file(path: Path, *, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read and check a config; `more` are fields that this kind of folder has besides.

    Raises:
        ModelError: the file is damaged, of a format that this version does not know, or with
            fields that are missing, unknown, of another type or out of range; all are named.
    """
    try:
        config = read_json(path)
    except json.JSONDecodeError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} holds a {type(config).__name__}, wanted an object.")
    number = config.get("format")
    if number is True or number != FORMAT:
        raise ModelError(
            f"{path} has format {number!r}, this version reads {FORMAT}; "
            "upgrade faprompt, or train again."
        )
    faults = _config_faults(config, more)
    if faults:
        raise ModelError(f"{path}: {'; '.join(faults)}.")
    return config


def _config_faults(config: Mapping[str, Any], more: tuple[str, ...]) -> list[str]:
    faults = [f"{key} is missing" for key in _KINDS if key not in config]
    faults += [f"{key!r} is unknown" for key in config if key not in (*_KINDS, *more, "format")]
    faults += [
        f"{key} should be {' or '.join(kind.__name__ for kind in kinds)}, got {config[key]!r}"
        for key, kinds in _KINDS.items()
        if key in config and (not isinstance(config[key], kinds) or isinstance(config[key], bool))
    ]
    threshold = config.get("threshold")
    if isinstance(threshold, int | float) and not 0 <= threshold <= 1:
        faults.append(f"threshold should lie in 0..1, got {threshold}")
    backbone = config.get("backbone")
    if not isinstance(backbone, dict):
        return faults
    lacking = [part for part in _BACKBONE if not isinstance(backbone.get(part), str)]
    faults += [f"backbone's {part} is missing" for part in lacking]
    faults += [f"backbone's {part!r} is unknown" for part in backbone if part not in _BACKBONE]
    digits = backbone.get("fingerprint")
    if isinstance(digits, str) and not _FINGERPRINT.fullmatch(digits):
        faults.append(f"backbone's fingerprint should be 64 hex digits, got {digits!r}")
    return faults


def recorded_note(described: Mapping[str, Any]) -> str:
    """Return the preset's note in a folder's config or a detector's description, or ""."""
    return str(described.get("training", {}).get("note", ""))


def recorded_preset(described: Mapping[str, Any]) -> str | None:
    """Return the preset in a folder's config or a detector's description, or None."""
    return described.get("training", {}).get("preset")
