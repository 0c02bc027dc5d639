"""The files of a model folder, read and checked: `config.json` and `model.safetensors`.

A folder may come from anywhere, so nothing in it is trusted: types, ranges, names, shapes and
values are checked before they are used, and every fault is a `ModelError` that names it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faprompt.config import read_json
from faprompt.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from faprompt.methods.base import Method

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FORMAT = 1

_KINDS: Mapping[str, tuple[type, ...]] = {
    "name": (str,), "license": (str,), "method": (str,), "options": (dict,), "backbone": (dict,),
    "transform": (dict,), "threshold": (float, int, type(None)), "training": (dict,),
}  # fmt: skip
_BACKBONE = ("name", "source", "fingerprint")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check a model folder's config.

    Raises:
        ModelError: not a model folder, of a format that this version does not know, or with
            fields that are missing, unknown, of another type or out of range; all are named.
    """
    path = folder / CONFIG
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder} is not a model folder: it wants {CONFIG} and {WEIGHTS}.")
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
    faults = _config_faults(config)
    if faults:
        raise ModelError(f"{path}: {'; '.join(faults)}.")
    return config


def load_weights(method: Method, folder: Path) -> None:
    """Give a method the tensors of a model folder.

    Raises:
        ModelError: the file is none, or tensors are missing, unknown, of another shape, of
            another type, or not finite; all are named.
    """
    from faprompt.clip.tensor_files import read_safetensors, value_faults

    path = folder / WEIGHTS
    state, wanted = read_safetensors(path), method.state_dict()
    faults = [f"missing {key}" for key in sorted(set(wanted) - set(state))]
    faults += [f"unknown {key}" for key in sorted(set(state) - set(wanted))]
    faults += [
        f"{key} is {tuple(state[key].shape)}, wanted {tuple(wanted[key].shape)}"
        for key in sorted(set(wanted) & set(state))
        if state[key].shape != wanted[key].shape
    ]
    faults += value_faults(wanted, state)
    if faults:
        raise ModelError(f"{path} does not fit its config: {'; '.join(faults)}.")
    method.load_state_dict(state)


@contextmanager
def bounded_tensors(most_bytes: int) -> Iterator[None]:
    """Refuse tensors above a size while the block runs, as options of a damaged config want.

    Memory that a tensor promises is taken when it is filled, so the refusal comes in time.

    Raises:
        MemoryError: a tensor has more bytes than this.
    """
    from torch import Tensor
    from torch.overrides import TorchFunctionMode

    class Bounded(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.nbytes > most_bytes:
                raise MemoryError(f"a tensor {tuple(result.shape)} of {result.nbytes:,} bytes")
            return result

    with Bounded():
        yield


def check_options(config: Mapping[str, Any], folder: Path) -> None:
    """Check the method and its options as far as they need no backbone.

    Raises:
        ModelError: unknown method or option, a value out of range, or one of another type than
            is written, such as "5" for 5.
    """
    from faprompt.config import from_mapping, to_mapping
    from faprompt.methods.registry import method_class

    name, given = config["method"], config["options"]
    try:
        built = from_mapping(method_class(name).config_class, given, what=f"{name} options")
    except ConfigError as error:
        raise ModelError(f"{folder / CONFIG}: {error}") from error
    faults = [
        f"options.{option} should be {json.dumps(meant)}, got {json.dumps(given[option])}"
        for option, meant in to_mapping(built).items()
        if option in given and not _same_kind(given[option], meant)
    ]
    if faults:
        raise ModelError(f"{folder / CONFIG}: {'; '.join(faults)}.")


def _same_kind(value: Any, meant: Any) -> bool:
    if isinstance(meant, (list, tuple)):
        pairs = zip(value, meant, strict=False) if isinstance(value, list) else None
        return pairs is not None and all(_same_kind(one, other) for one, other in pairs)
    if isinstance(value, bool) or isinstance(meant, bool):
        return value is meant
    numbers = isinstance(value, (int, float)) and isinstance(meant, (int, float))
    return numbers or isinstance(value, type(meant))


def _config_faults(config: Mapping[str, Any]) -> list[str]:
    faults = [f"{key} is missing" for key in _KINDS if key not in config]
    faults += [f"{key!r} is unknown" for key in config if key not in (*_KINDS, "format")]
    faults += [
        f"{key} should be {' or '.join(kind.__name__ for kind in kinds)}, got {config[key]!r}"
        for key, kinds in _KINDS.items()
        if key in config and not _is_of(config[key], kinds)
    ]
    threshold = config.get("threshold")
    if isinstance(threshold, int | float) and not 0 <= threshold <= 1:
        faults.append(f"threshold should lie in 0..1, got {threshold}")
    backbone = config.get("backbone")
    return faults + (_backbone_faults(backbone) if isinstance(backbone, dict) else [])


def _backbone_faults(backbone: Mapping[str, Any]) -> list[str]:
    faults = [
        f"backbone's {part} is missing"
        for part in _BACKBONE
        if not isinstance(backbone.get(part), str)
    ]
    faults += [f"backbone's {part!r} is unknown" for part in backbone if part not in _BACKBONE]
    digits = backbone.get("fingerprint")
    if isinstance(digits, str) and not _FINGERPRINT.fullmatch(digits):
        faults.append(f"backbone's fingerprint should be 64 hex digits, got {digits!r}")
    return faults


def _is_of(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)
