"""The files of a model folder: `config.json`, `model.safetensors` and a model card.

The folder holds the learned part only; its config names the backbone and all options. It may
come from anywhere, so types, ranges, names, shapes and values are checked before they are used,
and every fault is a `ModelError` that names it. Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save as to_bytes
from torch import Tensor
from torch.overrides import TorchFunctionMode

from faprompt.clip.tensor_files import is_finite, read_safetensors, state_faults
from faprompt.config import from_mapping, to_mapping
from faprompt.errors import ConfigError, ModelError
from faprompt.files import write_atomically
from faprompt.folder_config import CARD, CONFIG, FORMAT, read_config_file
from faprompt.methods.base import Method
from faprompt.methods.registry import method_class

WEIGHTS = "model.safetensors"


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check a model folder's config.

    Raises:
        ModelError: not a model folder, of a format that this version does not know, or with
            fields that are missing, unknown, of another type or out of range; all are named.
    """
    path = folder / CONFIG
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder} is not a model folder: it wants {CONFIG} and {WEIGHTS}.")
    return read_config_file(path)


def write_model(folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write a model folder, each file whole or not at all; it is created if it does not exist.

    `config` is as `read_config` returns it, without `format`.

    Raises:
        ModelError: a parameter holds values that are not finite; nothing is written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    broken = [name for name, tensor in tensors.items() if not is_finite(tensor)]
    if broken:
        raise ModelError(
            f"The model {config['name']!r} is not finite: {', '.join(broken[:6])} hold NaN or "
            "infinity. Nothing was written; a lower learning_rate often helps."
        )
    text = json.dumps({"format": FORMAT, **config}, indent=2)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / WEIGHTS, to_bytes(tensors))
    write_atomically(folder / CARD, model_card(config).encode())
    write_atomically(folder / CONFIG, (text + "\n").encode())


def load_weights(method: Method, folder: Path) -> None:
    """Load the tensors of a model folder into a method.

    Raises:
        ModelError: the file is no safetensors file, or tensors are missing, unknown, of another
            shape or type, or not finite; up to 12 of each kind are named.
    """
    path = folder / WEIGHTS
    state = read_safetensors(path)
    if faults := state_faults(method.state_dict(), state):
        raise ModelError(f"{path} does not fit its config: {'; '.join(faults)}.")
    method.load_state_dict(state)


@contextmanager
def bounded_tensors(most_bytes: int) -> Iterator[None]:
    """Raise MemoryError for a tensor above a size, before it is filled and takes memory."""

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
    """Check the method and its options as far as that needs no backbone.

    Raises:
        ModelError: unknown method or option, a value out of range or of another type.
    """
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


def model_card(config: Mapping[str, Any]) -> str:
    """Return the text of a folder's README.md, in the form the Hugging Face hub reads."""
    training = "\n".join(f"- {key}: {value}" for key, value in config["training"].items())
    kind, known, argument = "zero-shot", "", ""
    if method_class(config["method"]).full_shot:
        kind, classes = "full-shot", config["options"].get("classes", ())
        listed = ", ".join(f"`{name}`" for name in classes) or "none yet"
        names = "`class_name`, or `--class-name`, says which of them a picture shows"
        if len(classes) == 1:
            names = "Pictures are taken to show it"
        elif classes:
            argument = f", class_name={classes[0]!r}"
        known = (
            "Full-shot: it has learned the normal pictures of these classes and knows no others: "
            f"{listed}. {names}; another name is refused, and a picture of another thing gets "
            "a score that means nothing.\n\n"
        )
    return (
        f"---\nlibrary_name: faprompt\ntags: [anomaly-detection, {kind}]\n"
        f"license: {config['license']}\n---\n\n# {config['name']}\n\n"
        f"`{config['method']}` on the frozen backbone `{config['backbone']['name']}` "
        f"(weights {config['backbone']['fingerprint'][:12]}).\n\n{known}"
        f"```python\nimport faprompt\n\ndetector = faprompt.load_detector(FOLDER{argument})\n"
        'result = detector.predict("part.png")\n```\n\n'
        f"## Training\n\n{training or 'Not recorded.'}\n"
    )
